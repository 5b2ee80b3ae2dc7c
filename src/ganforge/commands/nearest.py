"""What the user probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or the empty string."""
    known = [k for k in known if not word.startswith(f"{k}.")]
    same = [k for k in known if k.endswith(f".{word}")]
    near = same[:1] or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:
        # A dotted key whose last part is right or nearly so, somewhere else.
        leaf = word.rsplit(".", 1)[-1]
        leaves = {k.rsplit(".", 1)[-1]: k for k in known}
        near = [leaves[m] for m in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)]
    return f"; did you mean '{near[0]}'?" if near else ""
