"""What is there is spared by collections while a report is written, and by no later one."""

import gc
import weakref

import pytest

from harness.report.collecting import sparing


class Ring:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_is_spared_meanwhile_and_new_garbage_is_not():
    there = weakref.ref(Ring())
    with sparing():
        new = weakref.ref(Ring())
        gc.collect()
        assert new() is None
        assert there() is not None
        assert gc.get_freeze_count() > 0
    gc.collect()
    assert there() is None
    assert gc.get_freeze_count() == 0


def test_an_error_thaws_too():
    with pytest.raises(OSError, match="full"), sparing():
        raise OSError("full")
    assert gc.get_freeze_count() == 0


def test_what_somebody_froze_stays_frozen():
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with sparing():
            pass
        assert gc.get_freeze_count() == pytest.approx(frozen, abs=50)  # some of it may be freed
    finally:
        gc.unfreeze()
