"""What a store's writer remembers of an object, so as not to ask for it at every commit."""

import attrs


@attrs.define
class KnownHistory:
    """The sums of an object's durable history. `oldest_ms` is that of its oldest event, as far as is known."""

    events: int
    bytes: int
    oldest_ms: int


@attrs.define
class KnownObject:
    """A row of the table `object`; `history` is None where there is none, or where nobody has looked yet."""

    number: int
    bytes: int
    history: KnownHistory | None = None
