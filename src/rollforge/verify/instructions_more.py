"""The families beyond IFEval that rows of NeMo Gym's `instruction_following` have.

They mean what their sentence asks of the policy. Where the public checker asks for something else, this goes by the
sentence: words are compared without the punctuation around them, punctuation is no word, one letter is no palindrome.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

from rollforge.verify.instructions_arguments import Family, count, letter, relation, text
from rollforge.verify.instructions_ifeval import Relation, divided, keyword_frequency, letter_frequency, occurrences
from rollforge.verify.sentences import sentences, words


def two_paragraphs(reply: str) -> bool:
    """With a blank line between them."""
    return sum(bool(part.strip()) for part in reply.strip().split("\n\n")) == 2


def first_word(reply: str, first_word: str) -> bool:
    return _same(words(reply)[:1], first_word)


def last_word(reply: str, last_word: str) -> bool:
    return _same(words(reply)[-1:], last_word)


def first_word_of_each(reply: str, first_word: str) -> bool:
    return all(_same(words(one)[:1], first_word) for one in sentences(reply))


def last_word_of_each(reply: str, last_word: str) -> bool:
    return all(_same(words(one)[-1:], last_word) for one in sentences(reply))


def _same(found: Sequence[str], word: str) -> bool:
    return [one.casefold() for one in found] == [word.casefold()]


def copied(reply: str, prompt_to_repeat: str) -> bool:
    return reply.strip().lower() == prompt_to_repeat.lower()


def copied_times(reply: str, prompt_to_repeat: str, N: int) -> bool:
    parts = reply.split("******")
    return len(parts) == N and all(copied(part, prompt_to_repeat) for part in parts)


def copied_span(reply: str, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    """The last index is included, says the instruction; not, says the public checker. Either way."""
    return any(copied(reply, prompt_to_repeat[n_start:end].strip()) for end in (n_end, n_end + 1))


def repeat_phrase(reply: str, phrase: str, small_n: int) -> bool:
    """The phrase so many times, each time with one other word in its middle."""
    asked = [word.casefold() for word in words(phrase)]
    given = [word.casefold() for word in words(reply)]
    size = len(asked)
    windows = (given[start : start + size] for start in range(len(given) - size + 1))
    changed = [
        sum(a != b for a, b in zip(asked, one, strict=True))
        for one in windows
        if one[0] == asked[0] and one[-1] == asked[-1]
    ]
    return len(changed) == small_n and all(number == 1 for number in changed)


def hyphened(reply: str) -> bool:
    """Sentences joined by hyphens, without spaces; there is no other hyphen."""
    parts = reply.strip().split("-")
    return all(part == part.strip() and len(sentences(part)) == 1 and part[-1] in ".?!" for part in parts)


def no_consecutive_letters(reply: str) -> bool:
    first = [ord(word[0].lower()) for word in words(reply) if len(word[0].lower()) == 1]
    return all(right - left != 1 for left, right in pairwise(first))


def bracketed(reply: str) -> bool:
    return all(len(word) > 2 and word[0] == "[" and word[-1] == "]" for word in reply.split())


def bigrams_wrapped(reply: str) -> bool:
    parts = reply.split()
    pairs = zip(parts[::2], parts[1::2], strict=False)
    return len(parts) > 1 and all(left.startswith("<<") and right.endswith(">>") for left, right in pairs)


def once(reply: str, keyword: str) -> bool:
    return occurrences(reply, keyword) == 1


def once_and_twice(reply: str, keyword1: str, keyword2: str) -> bool:
    return occurrences(reply, keyword1) == 1 and occurrences(reply, keyword2) == 2


def without_word(reply: str, keyword: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(keyword)}(?!\w)", reply) is None


def without(reply: str, mark: str) -> bool:
    return mark not in reply


def lowercase_words(reply: str, N: int) -> bool:
    return sum(1 for _ in re.finditer(r"\b[a-z]+\b", reply)) <= N


def letters(reply: str, N: int, relation: Relation) -> bool:
    return relation(sum(char.isascii() and char.isalpha() for char in reply), N)


def composed(reply: str, n_sent: int, n_words: int) -> bool:
    """Three paragraphs with `***` between them, of so many sentences, of so many words."""
    parts = [part for part in re.split(r"\*\*\*|\* \* \*", reply) if part.strip()]
    lengths = [[len(words(one)) for one in sentences(part)] for part in parts]
    return lengths == [[n_words] * n_sent] * 3


def unique_words(reply: str) -> bool:
    found = [word.casefold() for word in words(reply)]
    return len(set(found)) == len(found)


def palindrome(reply: str) -> bool:
    found = (word.casefold() for word in words(reply))
    return any(len(word) > 2 and word.isalpha() and word == word[::-1] for word in found)


def keyword_at(reply: str, keyword: str, n: int, m: int) -> bool:
    """The m-th word of the n-th sentence."""
    one = sentences(reply)[n - 1 : n] if n else []
    return bool(m and one) and _same(words(one[0])[m - 1 : m], keyword)


def starts_as_it_ends(reply: str) -> bool:
    """With the same word, and nothing behind it."""
    found = reply.split()
    return len(found) > 1 and found[-1].isalnum() and _same(words(found[0]), found[-1])


_PROMPT = {"prompt_to_repeat": text}

MORE: Mapping[str, Family] = {
    "copy:copy": Family(copied, _PROMPT),
    "copy:copying_multiple": Family(copied_times, {**_PROMPT, "N": count}),
    "copy:copying_simple": Family(copied, _PROMPT),
    "copy:repeat_phrase": Family(repeat_phrase, {"phrase": text, "small_n": count}),
    "count:count_increment_word": Family(once_and_twice, {"keyword1": text, "keyword2": text}),
    "count:count_unique": Family(unique_words),
    "count:counting_composition": Family(composed, {"n_sent": count, "n_words": count}),
    "count:lowercase_counting": Family(lowercase_words, {"N": count}),
    "detectable_format:bigram_wrapping": Family(bigrams_wrapped),
    "detectable_format:sentence_hyphens": Family(hyphened),
    "detectable_format:square_brackets": Family(bracketed),
    "first_word:first_word_answer": Family(first_word, {"first_word": text}),
    "first_word:first_word_sent": Family(first_word_of_each, {"first_word": text}),
    "keywords:exclude_word_harder": Family(without_word, {"keyword": text}),
    "keywords:keyword_specific_position": Family(keyword_at, {"keyword": text, "n": count, "m": count}),
    "keywords:no_adjacent_consecutive": Family(no_consecutive_letters),
    "keywords:palindrome": Family(palindrome),
    "keywords:start_end": Family(starts_as_it_ends),
    "keywords:word_count_different_numbers": Family(
        keyword_frequency, {"keyword": text, "frequency": count, "relation": relation}
    ),
    "keywords:word_once": Family(once, {"keyword": text}),
    "last_word:last_word_answer": Family(last_word, {"last_word": text}),
    "last_word:last_word_sent": Family(last_word_of_each, {"last_word": text}),
    "letters:letter_counting": Family(letters, {"N": count, "relation": relation}),
    "letters:letter_counting2": Family(
        letter_frequency, {"letter": letter, "let_frequency": count, "let_relation": relation}
    ),
    "new:copy_span_idx": Family(copied_span, {**_PROMPT, "n_start": count, "n_end": count}),
    "paragraphs:paragraphs": Family(partial(divided, num_paragraphs=2)),
    "paragraphs:paragraphs2": Family(two_paragraphs),
    "punctuation:punctuation_dot": Family(partial(without, mark=".")),
    "punctuation:punctuation_exclamation": Family(partial(without, mark="!")),
}
