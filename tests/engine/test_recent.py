"""A cache keeps what was used last, up to its bound."""

from tasks.engine.recent import Recent


def test_what_was_used_longest_ago_makes_room() -> None:
    kept: Recent[str] = Recent(6, len)
    for name in ("aa", "bb", "cc"):
        kept.put(name, name)
    assert kept.get("aa") == "aa"
    kept.put("d", "d")
    assert [kept.get(name) for name in ("aa", "bb", "cc", "d")] == ["aa", None, "cc", "d"]
    assert kept.taken == 5
    kept.put("cc", "cccc")
    assert [kept.get(name) for name in ("aa", "cc", "d")] == [None, "cccc", "d"]
    kept.put("large", "larger!")
    assert (kept.get("large"), kept.taken) == (None, 0)
