"""What a store refuses, for those who answer each in its own way."""


class UnknownName(ValueError):
    """There is no session, or no snapshot, of this name."""


class TakenName(ValueError):
    """There is one of this name already."""


class HeldElsewhere(ValueError):
    """Somebody else has the session open."""


class OtherModel(ValueError):
    """The session was read with another model, tokenizer or setting."""


class Damaged(ValueError):
    """What is on disk cannot be read."""
