"""The learned context: where its vectors stand among the tokens of each class, and which words they are near."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adapt.methods.adapter import Noted
from adapt.methods.coop import TOKENS, Config
from adapt.plug import UserError

if TYPE_CHECKING:
    from adapt.contracts import TextSlot

WORD, OTHER = "a", "b"
"""A word that every tokenizer knows, in the place of the context; and another."""
LONGER = " ".join([WORD] * 1024)
"""Longer than any text tower reads: what is tokenised beside it is padded to the full length."""
TEXTS = 512
"""Texts that are encoded together."""
NEAR = 3
"""Words that are noted of each vector."""
PART = 16384
"""Words that are compared at once."""


class Layout:
    """How a tokenizer writes a text: begin, words, end, padding; found by asking it."""

    def __init__(self, slot: TextSlot):
        self.slot = slot
        word, other, two = self.rows([WORD, OTHER, f"{WORD} {WORD}"])
        self.limit, self.pad = len(word), word[-1]
        self.begin = next(i for i in range(self.limit) if word[i] != other[i])
        once = self.length(two) - self.length(word)
        self.word = word[self.begin : self.begin + once]
        self.ends = self.length(word) - self.begin - once
        """Tokens of the end that are no padding: none where a text is padded with its end."""
        self.head, self.tail = word[: self.begin], word[self.begin + once :]
        self.whole = slot.tokens([WORD]).shape[1] == self.limit
        """Does the tower read its full length, whatever the text says?"""

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts, padded to the tower's length."""
        return self.slot.tokens([*texts, LONGER])[:-1].tolist()

    def length(self, row: list[int]) -> int:
        """Tokens before the padding."""
        return next((i + 1 for i in reversed(range(len(row))) if row[i] != self.pad), 0)

    def words(self, row: list[int], first: int = 0) -> list[int]:
        """What is between begin and end, without the `first` tokens."""
        return row[self.begin + first : self.length(row) - self.ends]

    def room(self, row: list[int]) -> int:
        """Places for context where the word is now with which a text begins; of a text that may have been cut, none."""
        used = self.length(row) + (not self.ends)
        return self.limit - used + len(self.word) if used < self.limit else 0


class Context(Noted):
    """Text embeddings of the classes, by words that learn: () → float32[C, D], L2-normalised.

    The prompt of a class is `[V]1 … [V]M CLASS.` (eq. 2), or `[V]1 … [V]M/2 CLASS [V]M/2+1 … [V]M.` (eq. 3).

    Raises:
        UserError: context and class are longer than what the text tower reads.
    """

    def __init__(self, slot: TextSlot, classes: Sequence[str], config: Config, device: torch.device):
        super().__init__()
        layout = Layout(slot)
        self.slot, self.classes, self.limit = slot, list(classes), layout.limit
        mark = "." if config.full_stop else ""
        written = layout.rows([f"{WORD} {name}{mark}" for name in classes])
        rooms = [layout.room(row) for row in written]
        self.longest = classes[rooms.index(min(rooms))]
        begins = layout.words(layout.rows([config.init])[0]) if config.init else []
        fitting = next((count for count in TOKENS if count <= min(rooms)), max(1, min(rooms)))
        self.count = len(begins) or config.tokens or fitting
        if self.count > min(rooms):
            raise UserError(self._too_long(min(rooms), config))
        names = [layout.words(row, len(layout.word)) for row in written]
        tokens, places = self._placed(layout, names, config.position == "middle", mark)
        self.register_buffer("tokens", torch.tensor(tokens), persistent=False)
        self.register_buffer("places", torch.tensor(places)[..., None], persistent=False)
        self.to(device)
        self.context = nn.Parameter(self._start(begins, config))

    def _too_long(self, room: int, config: Config) -> str:
        """What to tell a user whose context and longest class do not fit."""
        option = "init" if config.init else "tokens"
        step = (
            f"Take {room} at most, or name the class shorter in prompts.classes."
            if room
            else "Name it shorter in prompts.classes."
        )
        asked = f"{self.count} context tokens and the class {self.longest!r}"
        return f"method.{option}: {asked} are more than the {self.limit} tokens that this text tower reads. {step}"

    def _placed(
        self, layout: Layout, texts: list[list[int]], middle: bool, mark: str
    ) -> tuple[list[list[int]], list[list[int]]]:
        """The tokens of the prompts [C][T], `WORD` where the context is, and its places in them [C][M].

        Args:
            texts: the tokens of each class name and the `mark` behind it, which stays at the end.
        """
        stop = len(layout.words(layout.rows([WORD + mark])[0], len(layout.word)))
        before = self.count // 2 if middle else self.count
        longest = layout.begin + self.count + max(map(len, texts)) + max(1, layout.ends)
        total = layout.limit if layout.whole else longest
        tokens, places = [], []
        for text in texts:
            split = len(text) - stop if middle else len(text)
            blank = layout.word[:1]
            row = [*layout.head, *blank * before, *text[:split], *blank * (self.count - before), *text[split:], *layout.tail]
            tokens.append((row + [layout.pad] * total)[:total])
            second = layout.begin + before + split
            places.append([*range(layout.begin, layout.begin + before), *range(second, second + self.count - before)])
        return tokens, places

    @torch.no_grad()
    def _start(self, begins: list[int], config: Config) -> Tensor:
        """float32[M, W], or [C, M, W] with a context for each class: the embeddings of words, or N(0, 0.02) (§4.1)."""
        width = self.slot.embed(self.tokens[:1, :1]).shape[-1]
        shape = (len(self.classes), self.count) if config.class_specific else (self.count,)
        if not begins:
            return torch.empty(*shape, width).normal_(std=0.02).to(self.tokens.device)  # the same numbers on every device
        words = self.slot.embed(torch.tensor(begins, device=self.tokens.device)).float()
        return words.expand(*shape, width).clone()

    def forward(self) -> Tensor:
        fixed = self.slot.embed(self.tokens)
        context = self.context.expand(len(fixed), -1, -1).to(fixed.dtype)
        vectors = fixed.scatter(1, self.places.expand_as(context), context)
        parts = zip(self.tokens.split(TEXTS), vectors.split(TEXTS), strict=True)
        return torch.cat([self.slot.encode(tokens, part) for tokens, part in parts])

    # ----------------------------------------------------------------------------------------------------------- notes

    def notes(self) -> str:
        """The nearest words of each vector, as the paper's table has them: a hint for a reader, since no vector is a word."""
        words = self.slot.vocabulary()
        distances, numbers = (value.tolist() for value in self._nearest(len(words)))
        near = [
            ", ".join(f"`{words[number]}` {distance:.2f}" for distance, number in zip(*row, strict=True))
            for row in zip(distances, numbers, strict=True)
        ]
        about = "The nearest tokens of the vocabulary to each learned vector, with their Euclidean distances."
        if self.context.ndim == 2:
            rows = [f"| {i + 1} | {text} |" for i, text in enumerate(near)]
            head = "| vector | nearest |"
        else:
            rows = [
                f"| {name} | {i + 1} | {near[c * self.count + i]} |"
                for c, name in enumerate(self.classes)
                for i in range(self.count)
            ]
            head = "| class | vector | nearest |"
        return "\n".join(["## Learned context", "", about, "", head, "|---" * (head.count("|") - 1) + "|", *rows]) + "\n"

    @torch.no_grad()
    def _nearest(self, words: int) -> tuple[Tensor, Tensor]:
        """Of all vectors: distances float32[N, K] and numbers int64[N, K] of the nearest words."""
        vectors = self.context.detach().reshape(-1, self.context.shape[-1]).float()
        found = []
        for start in range(0, words, PART):
            numbers = torch.arange(start, min(words, start + PART), device=vectors.device)
            distances = torch.cdist(vectors, self.slot.embed(numbers).float())
            near, places = distances.topk(min(NEAR, len(numbers)), largest=False)
            found.append((near, numbers[places]))
        near, numbers = (torch.cat(part, 1) for part in zip(*found, strict=True))
        best, order = near.topk(min(NEAR, near.shape[1]), largest=False)
        return best, numbers.gather(1, order)
