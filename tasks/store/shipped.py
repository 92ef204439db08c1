"""Where the files are that come with the code, in a checkout as in an installed wheel."""

from pathlib import Path

from platformdirs import user_cache_path

ROOT = Path(__file__).parents[2]
"""The folder that holds `tasks`, `flows` and `data`: of a wheel, the one that packages are installed in."""
DATA = ROOT / "data"
COMPOSED = DATA / "cache" if (ROOT / "pyproject.toml").is_file() else user_cache_path("fed-rag")
"""Where `fed-rag compose` writes. Of a wheel it is the user's cache, since what lies beside the code goes with it."""
