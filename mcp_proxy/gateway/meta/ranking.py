"""Which texts answer a question best: words with their rarity, after Okapi BM25. Pure; knows nothing of tools.

Identifiers are taken apart (``readFile``, ``read_file``, ``read-file``), plurals count as singulars, and the beginning of
a word finds the word, for less. Scripts without spaces are compared character by character.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, takewhile

MOST_WORDS = 12
"""Words of a question that count: the rarest ones."""
MOST_LOOKED_AT = 40_000
"""Places of words that are looked at for one question; its commonest words, which tell least, are left out beyond."""
MOST_ENDINGS = 20
"""Words that the beginning of one may stand for."""
_SATURATION, _LENGTH = 1.2, 0.6
_BEGINNING = 0.5
"""What a word counts of which only the beginning was given."""
_SHORTEST_BEGINNING = 3

_FILLING = frozenset(
    {
        "a", "an", "and", "are", "as", "at", "by", "do", "for", "from", "how", "i", "in", "is", "it", "me",
        "my", "of", "on", "or", "that", "the", "this", "to", "what", "with",
    }
)  # fmt: skip
"""Words that say nothing of what a tool does; they count only where there is no other."""

_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

Texts = Sequence[tuple[str, float]]
"""One document: its texts, each with what a word in it counts."""


def words(text: str) -> Iterator[str]:
    """The words of a text as they are compared; of ``GitHub`` also ``git`` and ``hub``."""
    return chain.from_iterable(map(_forms, _WORD.findall(text)))


@lru_cache(maxsize=32_768)
def _forms(word: str) -> tuple[str, ...]:
    lower = word.lower()
    parts = _HUMP.split(word) if word != lower else []
    return (_singular(lower), *(_singular(part.lower()) for part in parts if len(parts) > 1))


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    return f"{word[:-3]}y" if word.endswith("ies") and len(word) > 4 else word[:-1]


class Index:
    """Documents that can be asked for. What it takes to make one grows with the texts; keep it."""

    def __init__(self, documents: Iterable[Texts]) -> None:
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        lengths: list[float] = []
        for number, texts in enumerate(documents):
            counts = _counts(texts)
            lengths.append(sum(counts.values()))
            for word, count in counts.items():
                self._postings[word].append((number, count))
        self._size = len(lengths)
        mean = sum(lengths) / self._size if lengths else 1.0
        self._norms = [_SATURATION * (1 - _LENGTH + _LENGTH * length / (mean or 1.0)) for length in lengths]
        self._postings.default_factory = None
        self._vocabulary = sorted(self._postings)

    def __len__(self) -> int:
        return self._size

    def ranked(self, question: str) -> list[int]:
        """The numbers of the documents that have any word of the question, the best first; equals in their order."""
        said = dict.fromkeys(words(question))
        asked = {word: self._meant(word) for word in ([one for one in said if one not in _FILLING] or said)}
        rarest = sorted((self._places(meant), word) for word, meant in asked.items() if meant)
        scores: dict[int, float] = defaultdict(float)
        looked_at = 0
        for places, word in rarest[:MOST_WORDS]:
            looked_at += places
            if scores and looked_at > MOST_LOOKED_AT:
                break
            for number, score in self._scores(asked[word]).items():
                scores[number] += score
        return sorted(scores, key=lambda number: (-scores[number], number))

    def _meant(self, word: str) -> dict[str, float]:
        """The words that are there and that ``word`` stands for, each with what it counts."""
        meant = dict.fromkeys(self._endings(word), _BEGINNING)
        if word in self._postings:
            meant[word] = 1.0
        return meant

    def _endings(self, word: str) -> Iterable[str]:
        """The longer words that begin so."""
        if len(word) < _SHORTEST_BEGINNING:
            return ()
        start = bisect_left(self._vocabulary, word)
        found = self._vocabulary[start : start + MOST_ENDINGS + 1]
        return (other for other in takewhile(lambda one: one.startswith(word), found) if other != word)

    def _places(self, meant: Iterable[str]) -> int:
        return sum(len(self._postings[word]) for word in meant)

    def _scores(self, meant: Mapping[str, float]) -> Mapping[int, float]:
        """What each document has of words that stand for one of the question: the best counts."""
        scores: dict[int, float] = {}
        for word, factor in meant.items():
            self._score(word, factor, scores)
        return scores

    def _score(self, word: str, factor: float, scores: dict[int, float]) -> None:
        """Give each document with the word the better of its score so far and this one."""
        found = self._postings[word]
        rarity = factor * math.log(1 + (self._size - len(found) + 0.5) / (len(found) + 0.5))
        for number, count in found:
            score = rarity * count * (_SATURATION + 1) / (count + self._norms[number])
            if score > scores.get(number, 0.0):
                scores[number] = score


def _counts(texts: Texts) -> dict[str, float]:
    counts: dict[str, float] = defaultdict(float)
    for text, weight in texts:
        for word, count in Counter(words(text)).items():
            counts[word] += weight * count
    return counts
