"""The lm-evaluation-harness scores a model on a task of a file, as the model scores by itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from byte_tokenizer import ByteTokenizer
from slowwave.models.backbone import HybridLM
from slowwave.runtime.config import ChatFormat
from slowwave.runtime.model_folder import TalkerConfig, save
from slowwave.sleep.config import SleepConfig
from slowwave.sleep.stream import read_stream
from tiny_models import TWO_LAYERS

lm_eval: Any = pytest.importorskip("lm_eval")  # with its forty packages, for those who use it
tasks: Any = pytest.importorskip("lm_eval.tasks")
pytestmark = pytest.mark.filterwarnings("ignore")  # of those packages

MODEL = HybridLM(TWO_LAYERS, seed=1)
SLEEP = SleepConfig(window=16, passes=2)
TASK = """task: tiny
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: multiple_choice
target_delimiter: ""
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list:
  - metric: acc
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = TalkerConfig(model=TWO_LAYERS, sleep=SLEEP, chat=ChatFormat())
    save(tmp_path / "model", MODEL, ByteTokenizer(), config)
    return tmp_path / "model"


def score(context: str, continuation: str) -> float:
    """The log-probability of a continuation, a token at a time, on what the context left."""
    state = MODEL.initial_state(1)
    hidden, state = read_stream(MODEL, torch.tensor([list(context.encode())]), state, SLEEP)
    total, hidden = 0.0, hidden[:, -1:]
    for token in continuation.encode():
        total += float(MODEL.logits(hidden)[0, 0].log_softmax(-1)[token])
        hidden, state = MODEL.read(torch.tensor([[token]]), state)
    return total


@torch.no_grad()
def test_a_task_of_a_file_is_scored_as_the_model_scores(folder: Path, tmp_path: Path) -> None:
    from slowwave.evaluation.harness import HarnessModel

    questions = ["A context that is longer than a window of sixteen. Q", "Short"]
    choices = [" yes", " no", " perhaps"]
    rows = [{"question": each, "choices": choices, "answer": 1} for each in questions]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny.yaml").write_text(TASK.format(file=data))
    known = tasks.TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    found: Any = lm_eval.simple_evaluate(
        model=HarnessModel(str(folder)),
        tasks=["tiny"],
        task_manager=known,
        bootstrap_iters=0,
    )
    for sample, question in zip(found["samples"]["tiny"], questions, strict=True):
        for (response,), choice in zip(sample["resps"], choices, strict=True):
            assert float(response[0]) == pytest.approx(score(question, choice), abs=1e-4)


def test_a_context_may_be_read_whole(folder: Path) -> None:
    from slowwave.evaluation.harness import HarnessModel

    context, continuation = [*b"A context that is longer than a window"], [*b" of sixteen"]
    slept = HarnessModel(str(folder))._loglikelihood_tokens([(None, context, continuation)])
    whole = HarnessModel(str(folder), sleeps="False")
    found = whole._loglikelihood_tokens([(None, context, continuation)])
    with torch.no_grad():
        logits, _ = MODEL(torch.tensor([context + continuation[:-1]]))
    logs = logits[0, len(context) - 1 :].log_softmax(-1)
    expected = logs.gather(-1, torch.tensor(continuation)[:, None]).sum()
    assert found[0][0] == pytest.approx(float(expected), abs=1e-4)
    assert slept[0][0] != found[0][0]


def test_rolling_scores_add_up_and_replies_end_at_a_stop(folder: Path) -> None:
    from slowwave.evaluation.harness import HarnessModel

    class Request:
        def __init__(self, *args: Any) -> None:
            self.args = args

    model = HarnessModel(str(folder))
    (rolled,) = model.loglikelihood_rolling([Request("A text of more than a window of tokens")])
    with torch.no_grad():
        text = [0, *b"A text of more than a window of tokens"]
        hidden, _ = read_stream(MODEL, torch.tensor([text]), MODEL.initial_state(1), SLEEP)
        logs = MODEL.logits(hidden)[0, :-1].log_softmax(-1)
    expected = logs.gather(-1, torch.tensor(text[1:])[:, None]).sum()
    assert rolled == pytest.approx(float(expected), abs=1e-3)
    (whole,) = model.generate_until([Request("Hello", {"max_gen_toks": 12})])
    stop = whole[3]
    (cut,) = model.generate_until([Request("Hello", {"max_gen_toks": 12, "until": [stop]})])
    assert cut == whole.partition(stop)[0]
