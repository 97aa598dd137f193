"""Position of a training stream, as a few integers: what a checkpoint keeps so that the next sample is the next.

A run has ranks x workers streams; stream number = worker x ranks + rank. What a stream reads in an epoch, and in which
order, depends only on the seed, the epoch, its number and the number of streams (`gp.data.epoch`), so a position in it
is a number of records. Records count, not samples: a bad sample moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace


@dataclass(frozen=True)
class Span:
    """Records `start` .. `stop` - 1 of stream `stream` among `num_streams` in one epoch; stop None: up to the end.

    The fields are in the order in which checkpoints hold them.
    """

    epoch: int
    stream: int
    num_streams: int
    start: int = 0
    stop: int | None = None

    @property
    def is_whole(self) -> bool:
        """True if nothing of it was read and nothing was given to another stream."""
        return self.start == 0 and self.stop is None


@dataclass(frozen=True)
class Position:
    """Everything that a stream still has to read: its spans, then all epochs after the last of them.

    The spans are one, of the stream's own number, unless the run was resumed with another number of streams: then they
    may be what is left of any of the old ones.
    """

    stream: int
    num_streams: int
    spans: tuple[Span, ...]

    def walk(self) -> Iterator[Position]:
        """This position, then the one at the beginning of each following span; endless."""
        spans = self.spans
        while True:
            yield replace(self, spans=spans)
            spans = spans[1:] or (Span(spans[0].epoch + 1, self.stream, self.num_streams),)

    def at(self, start: int) -> Position:
        """The same spans, read before record `start` of the first one."""
        return replace(self, spans=(replace(self.spans[0], start=start), *self.spans[1:]))


def stream_range(stream: int, num_streams: int, total: int) -> range:
    """Records of a stream, of an epoch of `total` laid end to end: as many as every other stream's.

    What is left over at the end, fewer records than streams, is not read in this epoch.
    """
    size = total // num_streams
    return range(stream * size, (stream + 1) * size)


def first_positions(num_streams: int) -> list[Position]:
    """Positions of all streams at the beginning of a run, by number; those of a rank: `[rank::world]`."""
    return [Position(stream, num_streams, (Span(0, stream, num_streams),)) for stream in range(num_streams)]


def deal_again(positions: Sequence[Position], num_streams: int, total: int | None = None) -> list[Position]:
    """Spreads what a run left over another number of streams: each remaining record once.

    Streams may stand in different epochs: all are brought to the end of the latest one, whose followers are dealt to
    the new streams as usual.

    Args:
        positions: of all old streams of all ranks, by number.
        num_streams: of the new streams.
        total: records of an epoch; None: not known.

    Returns:
        Positions of the new streams, by number. With `total` they have equally many records left of each epoch, up to
        one; without it whole spans are dealt.
    """
    last = max(position.spans[-1].epoch for position in positions)
    left: list[Span] = []
    for old in positions:
        followers = range(old.spans[-1].epoch + 1, last + 1)
        left += [*old.spans, *(Span(epoch, old.stream, old.num_streams) for epoch in followers)]
    if any(span.epoch < last for span in left) and all(span.is_whole for span in left if span.epoch == last):
        last -= 1  # nobody has begun it: it is dealt as usual, too
    hands: list[list[Span]] = [[] for _ in range(num_streams)]
    for epoch in sorted({span.epoch for span in left if span.epoch <= last}):
        spans = sorted((s for s in left if s.epoch == epoch), key=lambda s: (s.num_streams, s.stream, s.start))
        whole = [spans[stream::num_streams] for stream in range(num_streams)]
        dealt = whole if total is None else _cut(spans, num_streams, total)
        hands = [[*hand, *more] for hand, more in zip(hands, dealt, strict=True)]
    return [Position(n, num_streams, (*hand, Span(last + 1, n, num_streams))) for n, hand in enumerate(hands)]


def num_read(positions: Sequence[Position], total: int) -> int:
    """Records that are not to come any more, over all streams, of epochs of `total` records.

    What a stream leaves out at the end of an epoch (see `stream_range`) counts as read as soon as the epoch has begun.
    """
    last = max(position.spans[-1].epoch for position in positions)
    left = 0
    for position in positions:
        spans, size = position.spans, total // position.num_streams
        left += sum((total // s.num_streams if s.stop is None else s.stop) - s.start for s in spans)
        left += size * (last - spans[-1].epoch)
    if all(span.is_whole for position in positions for span in position.spans if span.epoch == last):
        left += total - sum(total // position.num_streams for position in positions)  # nobody has begun it
    return (last + 1) * total - left


def to_lists(positions: Sequence[Position]) -> list[list[list[int]]]:
    """Spans as plain lists, as a checkpoint that loads with `weights_only=True` needs them."""
    return [[list(astuple(span)) for span in position.spans] for position in positions]


def from_lists(streams: Sequence[Sequence[Sequence[int]]]) -> list[Position]:
    """Positions of all streams, by number, from what `to_lists` made of them."""
    return [Position(n, len(streams), tuple(Span(*values) for values in spans)) for n, spans in enumerate(streams)]


def _cut(spans: Sequence[Span], num_pieces: int, total: int) -> list[list[Span]]:
    """Spans laid end to end, cut into pieces that differ by one record at most."""
    bounds = [(span, span.start, total // span.num_streams if span.stop is None else span.stop) for span in spans]
    length = sum(stop - start for _, start, stop in bounds)
    cuts = [length * number // num_pieces for number in range(num_pieces + 1)]
    pieces: list[list[Span]] = [[] for _ in range(num_pieces)]
    begin = 0  # of the span at hand, among all records that are left
    for span, start, stop in bounds:
        for piece, low, high in zip(pieces, cuts, cuts[1:]):
            first, after = max(low, begin), min(high, begin + stop - start)
            if first < after:
                piece.append(replace(span, start=start + first - begin, stop=start + after - begin))
        begin += stop - start
    return pieces
