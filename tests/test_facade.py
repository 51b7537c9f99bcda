"""What the package offers at its root, imported when it is first asked for."""

import pytest

import slowwave


def test_names_resolve() -> None:
    from slowwave.generation.model_folder import load
    from slowwave.memory.session import Session

    assert slowwave.Session is Session
    assert slowwave.load is load


def test_other_names_do_not() -> None:
    with pytest.raises(AttributeError, match="module 'slowwave' has no attribute 'Sessions'"):
        _ = slowwave.Sessions  # pyright: ignore[reportAttributeAccessIssue]
