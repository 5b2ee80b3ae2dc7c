"""The bar shows on a terminal when loading takes long, and nowhere else."""

import sys

import pytest

from ganforge import progress


@pytest.mark.parametrize(
    ("terminal", "patience", "rank", "shown"),
    [(True, 0.0, "0", True), (True, 60.0, "0", False), (False, 0.0, "0", False), (True, 0.0, "1", False)],
)
def test_the_bar_shows_only_where_it_helps(monkeypatch, capsys, terminal, patience, rank, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", patience)
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("TERM", "xterm")
    assert list(progress.show_progress([64, 64, 2], 130, "loading images", size=int)) == [64, 64, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert ("loading images" in err) == shown
    assert (err == "") == (not shown)
