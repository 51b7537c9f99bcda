"""What a dream learns from: questions that a user may ask about what he said, with answers.

Statements of the ledger are asked for in several phrasings, by template and, if wanted, by the
model. A critic lets through only what was said, and nothing that gives orders.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch

from slowwave.memory.config import DreamConfig
from slowwave.memory.ledger import Entry
from slowwave.memory.questions import answer, measure_tokens
from slowwave.runtime.asked import Asked, encode_asked, predict_answers
from slowwave.runtime.model_folder import TalkingModel
from slowwave.state import MemoryState

MOST_WORDS = 40
"""Of a statement; a longer one is rather a text than something told."""
MOST_QUESTION_TOKENS = 32
INVITATION = "Tell me something about you."
"""What a statement is measured as a reply to."""
AT_ONCE = 16
"""Dreams that are measured in one call."""


class Statement(NamedTuple):
    """A sentence in which a user tells of himself, and the place of its entry in the ledger."""

    place: int
    text: str


class Dream(NamedTuple):
    """A question, and the answer that a statement gives to it."""

    statement: Statement
    question: str
    answer: str


class Refused(NamedTuple):
    """A dream that the critic did not let through, and why."""

    dream: Dream
    reason: str


_TELLS = re.compile(r"\b(i|my|mine|our|ours|we|calls? me)\b", re.IGNORECASE)
_ASKS = re.compile(
    r"(please|can|could|would|will|may|do|does|did|is|are|what|who|where|when|why|how|which|tell|"
    r"give|show|explain|write|name|suggest|help|let|i would like you|i'd like you|i want you|"
    r"i need you)\b",
    re.IGNORECASE,
)
_ENDS = re.compile(r"(?<=[.!?])\s+|\n+")


def find_statements(entries: Sequence[Entry]) -> list[Statement]:
    """What users told of themselves, sentence by sentence; the newest of equal ones alone."""
    found = dict[str, Statement]()
    for place, entry in enumerate(entries):
        if entry.role != "user" or entry.is_models:
            continue
        for text in map(str.strip, _ENDS.split(entry.said)):
            if not text.endswith("?") and _TELLS.search(text) and not _ASKS.match(text):
                found.pop(text.casefold(), None)
                found[text.casefold()] = Statement(place, text)
    return [each for each in found.values() if 3 <= len(each.text.split()) <= MOST_WORDS]


# Templates: what a statement says, and how it may be asked for; {x} is what it is about.
_CALLS = r"((you can|you may|people|everyone|they) )?calls? me "
_X = r"(?P<x>[\w' -]{1,40}?)"
_NAME = ("What is my {x} called?", "What is the name of my {x}?", "What is my {x}'s name?")
_SELF = ("What is my name?", "Who am I?", "What am I called?")
_HOME = ("Where do I live?", "Which place is my home?", "Where is my home?")
_ORIGIN = ("Where was I born?", "Where do I come from?", "Where did I grow up?")
_JOB = ("What do I do for a living?", "What is my job?", "What work do I do?")
_FIRM = ("Who do I work for?", "Where do I work?", "Who is my employer?")
_FOOD = ("What am I allergic to?", "What must I not eat?", "What do I not tolerate?")
_SPOUSE = ("Who am I married to?", "What is my partner called?", "Who is my partner?")
_AGE = ("How old am I?", "What is my age?")
TEMPLATES = tuple(
    (re.compile(pattern, re.IGNORECASE), questions)
    for pattern, questions in (
        (rf"{_CALLS}|my name is |i am called |i'm called ", _SELF),
        (r"hi,? i('m| am) |i('m| am) [a-z]+, by the way", _SELF),
        (rf"(the )?name of (my|our) {_X} is ", _NAME),
        (rf"(my|our) {_X} (is|are|was) (called|named) ", _NAME),
        (rf"(my|our) {_X}('s name is| has the name| answers to) ", _NAME),
        (rf"(i|we) (have|own|got|keep) an? {_X},? (called|named) ", _NAME),
        (rf"(i|we) (call|named?|called) (my|our) {_X} \S+$", _NAME),
        (rf".+ is the name of (my|our) {_X}[.!]?$", _NAME),
        (rf"\S+ is (my|our) {_X}[.!]?$", ("Who is my {x}?", *_NAME)),
        (
            r"i('ve)?( have)? (been )?(live|living|moved to)\b|(my|our) home is |home for me is ",
            _HOME,
        ),
        (r"i was born in |i grew up in |i come from |my childhood was ", _ORIGIN),
        (r"i work as |i('m| am) an? .+ by profession|my job is |i earn my living ", _JOB),
        (r"i work (for|at) |my employer is |i('m| am) employed (at|by) ", _FIRM),
        (r"i('m| am) allergic to |i (can't|cannot|must not|don't) eat |i don't tolerate ", _FOOD),
        (r"i('m| am) married to |my better half is ", _SPOUSE),
        (r"i('m| am) [\w -]+ years old|my age is ", _AGE),
        (r"i('m| am) (afraid|scared) of ", ("What am I afraid of?", "What scares me?")),
        (
            r"i (?P<x>love|like|hate|dislike|play|drive|study|own|want|collect|speak|prefer|need|"
            r"eat|drink|teach|read|learn|grow|wear|miss|enjoy) ",
            ("What do I {x}?", "Do you remember what I {x}?"),
        ),
        (rf"(my|our) {_X} (lives|has moved|has a flat|is from) ", ("Where does my {x} live?",)),
        (
            rf"(my|our) {_X} (works as|is an? |earns|trained) ?",
            ("What does my {x} do?", "What is my {x}'s job?"),
        ),
        (rf"(my|our) {_X} (loves|likes) ", ("What does my {x} like?", "What does my {x} love?")),
        (rf"(my|our) {_X} (is|are|was|were) ", ("What is my {x}?", "Do you know my {x}?")),
    )
)
_ABOUT = (
    "What did I tell you about {x}?",
    "What do you know about {x}?",
    "Do you remember {x}?",
)
"""Asked of any statement. {x} is whatever it is about."""
_TOPIC = re.compile(
    r"\b(?:my|our) ((?:favou?rite )?[\w'-]+)|\b(?:an?|the) ([\w'-]+)", re.IGNORECASE
)
"""What a statement is about; else it is its longest word."""


def ask_by_template(statement: Statement) -> Iterator[Dream]:
    """Questions that a statement answers. The answer says it again, to the one who said it."""
    said = speak_to_user(statement.text)
    questions = dict[str, None]()
    for pattern, asked in TEMPLATES:
        found = pattern.match(statement.text)
        if found is None:
            continue
        about = found.groupdict().get("x") or ""
        questions |= dict.fromkeys(each.format(x=about) for each in asked)
        break
    topic = _TOPIC.search(statement.text)
    if topic is None:
        about = max(_WORD.findall(statement.text), key=len)
    else:
        about = f"my {topic[1]}" if topic[1] else f"the {topic[2]}"
    questions |= dict.fromkeys(each.format(x=about) for each in _ABOUT)
    yield from (Dream(statement, each, said) for each in questions)


def ask_by_model(talker: TalkingModel, state: MemoryState, statement: Statement) -> Iterator[Dream]:
    """The question that the model itself would ask; state: of a stream that was told nothing."""
    prompt = f'Someone said: "{statement.text}" Write one question of theirs that this answers.'
    reply = answer(talker, state, prompt, max_new_tokens=MOST_QUESTION_TOKENS)
    question, mark, _ = reply.strip().partition("?")
    if mark and question.strip():
        yield Dream(statement, f"{question.strip()}?", speak_to_user(statement.text))


_SPOKEN = {
    "i'm": "you're",
    "i am": "you are",
    "i was": "you were",
    "i've": "you've",
    "i'd": "you'd",
    "i'll": "you'll",
    "we're": "you're",
    "we've": "you've",
    "i": "you",
    "we": "you",
    "me": "you",
    "us": "you",
    "my": "your",
    "our": "your",
    "mine": "yours",
    "ours": "yours",
    "myself": "yourself",
}
_SPEAKER = re.compile(
    rf"\b({'|'.join(sorted(map(re.escape, _SPOKEN), key=len, reverse=True))})\b", re.IGNORECASE
)


def speak_to_user(text: str) -> str:
    """A sentence of the user, as it is said to them: "My dog is here." is "Your dog is here."."""
    text = re.sub(rf"^{_CALLS}", "My name is ", text, flags=re.IGNORECASE)
    said = _SPEAKER.sub(lambda found: _SPOKEN[found[0].casefold()], text)
    return said[:1].upper() + said[1:]


# The critic.

_ORDERS = re.compile(
    r"\b(ignore|disregard|forget|override|bypass)\b.{0,40}\b(previous|prior|above|earlier|all|any|"
    r"your|the|these|those)\b.{0,40}\b(instruction|prompt|rule|message|guideline|order|training)"
    r"|\b(system|developer) (prompt|message|mode)\b|\bjailbreak|\bnew instructions?\b"
    r"|\byou (are|act|must|will|shall) (now|always|never|only)\b|\b(pretend|act as|roleplay)\b"
    r"|\bfrom now on,? (you|always|never|answer|reply|respond|say)\b"
    r"|\b(reply|respond|answer|say|output|print|repeat) (only|always|with|exactly|the following)\b",
    re.IGNORECASE,
)
_MARKS = re.compile(
    r"<\|.*?\|>|</?(s|bos|eos|pad|unk|sys|system|user|assistant|tool)>|<<?/?sys>?>|\[/?inst\]"
    r"|<(start|end)_of_turn>|^\s*(#|>|\*\*)|^\s*(system|assistant|user|human|ai)\s*:|[\x00-\x08\x0b-\x1f\x7f]",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_LITTLE = frozenset(
    _WORD.findall(
        "a an and am are be been called did do does for have in is it name of on the theirs to was "
        "were you your yours you're you've you'd you'll yourself i i'm i've me my mine our we"
    )
)
"""Words that state nothing by themselves. No, not and never do."""
_KNOWN_QUESTIONS = frozenset(
    word.casefold()
    for _, questions in (*TEMPLATES, (None, _ABOUT))
    for question in questions
    for word in _WORD.findall(question)
)
NOT_SAID = "it states what the user did not say"
ORDERS = "it gives orders, or looks like a prompt"
UNLIKELY = "the model finds it too unlikely to be language"
TRIVIAL = "the model expects it word for word, so there is nothing to learn"
OUTDATED = "a later statement answers the same question"
TOO_LONG = "it does not fit into a window"


def sift(
    talker: TalkingModel,
    state: MemoryState,
    entries: Sequence[Entry],
    dreams: Iterable[Dream],
    config: DreamConfig,
) -> tuple[list[Dream], list[Refused]]:
    """What may be learned, and what may not. state: of a stream that was told nothing."""
    kept, refused = list[Dream](), list[Refused]()
    for dream in dreams:
        reason = _judge_words(entries, dream)
        if reason is None and not fits(talker, (dream.question, dream.answer)):
            reason = TOO_LONG
        if reason is None:
            kept.append(dream)
        else:
            refused.append(Refused(dream, reason))
    unlikely = _judge_likelihood(talker, state, kept, config)
    refused += [
        Refused(dream, unlikely[dream.statement]) for dream in kept if dream.statement in unlikely
    ]
    kept = [dream for dream in kept if dream.statement not in unlikely]
    newest = {dream.question.casefold(): dream for dream in kept}
    for dream in kept:
        newer = newest[dream.question.casefold()].statement
        if newer != dream.statement:
            refused.append(Refused(dream, OUTDATED))
    return [*newest.values()], refused


def count_reasons(refused: Iterable[Refused]) -> dict[str, int]:
    """How many dreams were refused for each reason."""
    return dict(collections.Counter(each.reason for each in refused))


def _judge_words(entries: Sequence[Entry], dream: Dream) -> str | None:
    """Why the words of a dream are unfit, if they are."""
    texts = (dream.statement.text, dream.question, dream.answer)
    if any(_ORDERS.search(text) or _MARKS.search(text) for text in texts):
        return ORDERS
    place, text = dream.statement
    entry = entries[place] if 0 <= place < len(entries) else None
    if entry is None or entry.role != "user" or entry.is_models:
        return NOT_SAID
    if " ".join(text.casefold().split()) not in " ".join(entry.said.casefold().split()):
        return NOT_SAID
    said = _stems(text) | _stems(speak_to_user(text))
    if not _stems(dream.answer) <= said | _LITTLE:
        return NOT_SAID
    return None if _stems(dream.question) <= said | _LITTLE | _KNOWN_QUESTIONS else NOT_SAID


def _stems(text: str) -> set[str]:
    return {word.casefold().removesuffix("'s") for word in _WORD.findall(text)}


def fits(talker: TalkingModel, pair: tuple[str, str]) -> bool:
    """Whether a question and its answer fit into a window of their own."""
    asked = encode_asked(talker, [pair])
    return asked.tokens.shape[1] + len(talker.begin("user")) < talker.sleep.window


def _judge_likelihood(
    talker: TalkingModel, state: MemoryState, dreams: Sequence[Dream], config: DreamConfig
) -> dict[Statement, str]:
    """The statements that the model finds unlikely, or expects word for word."""
    statements = [*dict.fromkeys(dream.statement for dream in dreams)]
    nll = measure_pairs(talker, state, [(INVITATION, each.text) for each in statements])
    judged = dict[Statement, str]()
    for statement, found in zip(statements, nll, strict=True):
        if not found.nll <= config.max_nll:  # NaN is unlikely too
            judged[statement] = UNLIKELY
        elif found.nll < config.min_nll:
            judged[statement] = TRIVIAL
    return judged


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """How well an answer is known: mean NLL of its tokens, in nats, and whether each of them is the
    likeliest."""

    nll: float
    is_right: bool


@torch.no_grad()
def measure_pairs(
    talker: TalkingModel, state: MemoryState, pairs: Sequence[tuple[str, str]]
) -> list[Measured]:
    """Measures each answer to its question, on a copy of one stream's state."""
    measured = list[Measured]()
    for start in range(0, len(pairs), AT_ONCE):
        asked: Asked = encode_asked(talker, pairs[start : start + AT_ONCE])
        logits, targets = predict_answers(talker, state, asked)
        nll = measure_tokens(logits, targets.tolist()).split(asked.num_targets)
        hits = (logits.argmax(-1) == targets).split(asked.num_targets)
        each = zip(nll, hits, strict=True)
        measured += [Measured(float(loss.mean()), bool(hit.all())) for loss, hit in each]
    return measured
