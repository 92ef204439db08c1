"""LLaMA-CLIP: a vision tower and a Llama text model put together as one ordinary LLaVA folder."""

from tasks.engine.families.family import Preset

PRESETS = {
    "llama-clip": Preset(
        "data/cache/llama-clip",
        8.1,
        "compose it once with tasks.engine.families.llama_clip.compose from the folders of BiomedCLIP and LLaMA-3 8B",
    )
}
