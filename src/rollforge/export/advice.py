"""Known failures of the trainers: what their messages mean, and what mends them.

From NeMo Gym's troubleshooting pages, and from the loaders' own sources: NeMo RL, datasets 5.2, TRL 1.16, verl 0.9, OpenRLHF
0.11.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rollforge.errors import reported


@dataclass(frozen=True, slots=True)
class Advice:
    name: str
    cause: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Found:
    """A known failure in a log."""

    line: int
    """The first that shows it, from 1."""
    text: str
    count: int
    advice: Advice


def advise(message: str) -> list[Advice]:
    """What is known about an error message, the most specific first; [] for an unknown one."""
    found = [advice for pattern, advice in _KNOWN if pattern.search(message)]
    return [_ZERO_IN.get(_framework(message), advice) if advice.name == _ZERO else advice for advice in found]


def advise_log(lines: Iterable[str]) -> list[Found]:
    """Known failures in a log, in the order in which they first appear; each line counts for its most specific one. Steps
    without any reward are no failure among others that have some. Whose log it is, its first mark of a framework says."""
    found: dict[str, tuple[int, str, int, Advice]] = {}
    rewarded, framework = False, ""
    for number, line in enumerate(lines, 1):
        framework = framework or _framework(line)
        if not _MAYBE.search(line):
            continue
        rewarded = rewarded or _REWARDED.search(line) is not None
        for advice in advise(line)[:1]:
            first, text, count, _ = found.get(advice.name, (number, line.strip(), 0, advice))
            found[advice.name] = (first, text, count + 1, advice)
    if rewarded:
        found.pop(_ZERO, None)
    if _ZERO in found and framework in _ZERO_IN:
        found[_ZERO] = (*found[_ZERO][:3], _ZERO_IN[framework])
    return [Found(line, text, count, advice) for line, text, count, advice in found.values()]


def read_log(file: str | Path) -> Iterator[str]:
    """The lines of a log, however long and whatever is in it; a progress bar's carriage returns end lines too."""
    with reported(f"cannot read {file}"), open(file, encoding="utf-8", errors="replace", newline=None) as log:
        while line := log.readline(1 << 16):
            yield line


def _framework(line: str) -> str:
    """Whose line of a log it is, by its words and the names of its metrics; "" where they say nothing."""
    mark = _MARK.search(line)
    return (mark.lastgroup or "").replace("_", "-") if mark else ""


def _known() -> Iterator[tuple[re.Pattern[str], Advice]]:
    for name, pattern, cause, remedy in _TABLE:
        yield re.compile(pattern, re.IGNORECASE), Advice(name, " ".join(cause.split()), " ".join(remedy.split()))


_ZERO = "all rewards zero"
_REWARDED = re.compile(
    r"(\b|(mean|avg|average)[ _/a-z]*)rewards?(/mean|/max)?['\"]?\s*[:=]\s*(np\.float64\()?['\"]?-?(0?\.0*)?[1-9]",
    re.IGNORECASE,
)
"""A log's line with a reward that is not 0."""
_MARK = re.compile(
    r"(?P<nemo_rl>nemo[-_ ]?rl\b|run_grpo|\b(avg|total) reward:)|(?P<openrlhf>openrlhf|global step \d+: \{)"
    r"|(?P<verl>\bverl\b|critic/(rewards|score)/)|(?P<trl>\btrl\b|['\"]reward_std['\"]|['\"]rewards/\w+/mean['\"])",
    re.IGNORECASE,
)
_COMPARED = (
    '{} compares {} with the answer\'s last box, what follows "answer:" or the last line: no attempt says it, or the '
    "policy ends no attempt before its maximum length."
)
_ZERO_IN = {
    framework: Advice(_ZERO, cause, remedy)
    for framework, cause, remedy in (
        (
            "nemo-rl",
            "The environment never finds the answer. NeMo RL compares with the row's output field (output_key) and not with "
            "ground_truth; an answer that is a number, empty, null or prose scores 0 without a message; a word counts "
            "only inside \\boxed{}.",
            "rollforge check FILE --for nemo-rl:grpo says which rows. Export anew with the expected answer in output "
            "(rollforge export ... --to nemo-rl:grpo), or set output_key: ground_truth; the answer must be a text. "
            "Check env.math.math_verify_impl: hf_math_verify, and that the prompt asks for \\boxed{}.",
        ),
        (
            "trl",
            _COMPARED.format("The reward function (reward_funcs; rewards.py of an export)", "the column ground_truth"),
            "log_completions: true shows the attempts, completions/clipped_ratio how many were cut (max_completion_length); "
            "rollforge check FILE --for trl:grpo looks at the rows. accuracy_reward reads the column solution.",
        ),
        (
            "verl",
            _COMPARED.format("The reward function (compute_score; reward.py of an export)", "reward_model.ground_truth"),
            "response_length/clip_ratio says how many attempts were cut (data.max_response_length); "
            "rollforge check FILE --for verl:grpo --config launch.sh looks at rows and reward function.",
        ),
        (
            "openrlhf",
            _COMPARED.format("The reward function (--reward.remote_url; reward_func.py of an export)", "the label"),
            "--data.label_key must name the field of the expected answer (without it labels are empty), --data.max_len and "
            "--rollout.max_new_tokens leave room for one; rollforge check FILE --for openrlhf:grpo --config launch.sh.",
        ),
    )
}
_KEY = r"KeyError[:(]? ?[\\'\"]*"
"""As a traceback, repr and people write it."""

# Specific ones first: name, pattern, cause, remedy.
_TABLE: tuple[tuple[str, str, str, str], ...] = (
    (
        "no val_data_path",
        _KEY + r"(val_data_path|train_data_path|chat_key|system_key|system_prompt|tool_key)\b",
        "NeMo RL 0.4 and 0.5 read all of train_data_path, val_data_path, chat_key, system_key, system_prompt, tool_key and "
        "use_preserving_dataset of an openai_format data set; one is missing.",
        "Write all seven keys, or export for the version you run: rollforge export ... --to nemo-rl:sft --target-version "
        "nemo-rl=0.5.",
    ),
    (
        "a key that the configuration lacks",
        _KEY + r"(num_workers|shuffle|use_multiple_dataloader|max_input_seq_length|add_bos|add_eos|add_generation_prompt"
        r"|num_prompts_per_dataloader|custom_dataloader)\b",
        "NeMo RL reads these keys of data without asking whether they are there; `_override_: true` drops the parent's.",
        "Write the key under data (num_workers: 1, shuffle: true, use_multiple_dataloader: false; SFT: add_bos, add_eos, "
        "add_generation_prompt); rollforge check FILE --for nemo-rl:sft --config FILE.yaml names all that lack.",
    ),
    (
        "KeyError: None",
        _KEY + r"None\b",
        "NeMo RL's sft.yaml sets output_key to null, and the ResponseDataset looks it up in each row.",
        "Set data.train.input_key: input and data.train.output_key: output.",
    ),
    (
        "KeyError: 'content'",
        _KEY + r"content\b",
        "A message has no content key: TRL and verl read it of every message, tool calls included.",
        'Write "content": "" on messages that only call tools (rollforge export does).',
    ),
    (
        "rows of two shapes",
        r"'list' object has no attribute 'endswith'",
        "TRL's SFTTrainer took the first row's text for the shape of all, and a later row has messages.",
        "Write all rows of a file as text, or all as messages (rollforge check FILE --for trl:sft names the line).",
    ),
    (
        "KeyError: a field of the rows",
        _KEY
        + r"(input|output|messages|prompt|chosen|rejected|context|completions?|problem|label|ground_truth|question|answer"
        r"|expected_answer|solution)\b"
        r"|(column|key) ['\"]?(input|output|messages|prompt|chosen|rejected)['\"]? (not found|does not exist|missing)"
        r"|Column (name )?\(?\[?['\"](input|output|messages|prompt|chosen|rejected)['\"].* not in",
        "The rows do not have the field that the configuration names: the data was made for another data set class, or "
        "input_key, output_key, prompt_key ... do not match.",
        "See the fields with: head -n 1 FILE | python -m json.tool. Then name them in the configuration, or check the file: "
        "rollforge check FILE --for nemo-rl:grpo.",
    ),
    (
        "KeyError: a field of rollouts",
        _KEY + r"(reward|responses_create_params|response|agent_ref)\b",
        "A line is no judged rollout: a failed one has no reward, a task no response, and rows made for a trainer have "
        "neither.",
        "rollforge stats FILE --bad lists the lines that cannot be used; rollforge export and transform_gym_to_*.py leave "
        "them out and say so.",
    ),
    (
        "no pairs",
        r"(no|(?<![\d.,])0) (dpo |preference )?pairs( were| could be)?( created| found| made| formed)"
        r"|created 0 (dpo |preference )?pairs",
        "No two attempts at one prompt differ enough in reward: one attempt per prompt, equal rewards, or a gap below the "
        "threshold.",
        "See the rewards: rollforge stats ROLLOUTS. Lower --min_gap (0.1), or --high_threshold 0.6 --low_threshold 0.5 with "
        "--strategy stratified; or collect more attempts per task: rollforge collect --repeats 8 at temperature 0.7 or "
        "more.",
    ),
    (
        "out of memory (GPU)",
        r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError|CUDA error: out of memory"
        r"|No available memory for the cache blocks|^\W*([\w.]+: )?((CUDA|GPU) )?(OOM|out[ -]of[ -]memory)( errors?)?\W*$",
        "The model, its optimizer and the activations of one micro batch do not fit onto the GPU.",
        "In this order: train_micro_batch_size 1 or 2 (TRL: per_device_train_batch_size; verl: "
        "ppo_micro_batch_size_per_gpu; OpenRLHF: --train.micro_batch_size), activation checkpointing (NeMo RL: "
        "policy.dtensor_cfg.activation_checkpointing: true), a shorter maximum length, less memory for generation "
        "(gpu_memory_utilization), LoRA, more GPUs. 1-3B need one GPU of 24 GB, 7-8B one or two of 40-80 GB, 32B and more "
        "four to eight of 80 GB.",
    ),
    (
        "out of memory (host)",
        r"(oom|out of memory).{0,40}kill|Killed process \d+|^\W*Killed\W*$|: +\d+ Killed\b"
        r"|exit(ed with| status| code)? ?(-9|137)\b"
        r"|OutOfMemoryError: Task was killed|\bray\.\S*OutOfMemoryError|killed due to memory",
        "The machine's memory ran out (not the GPU's), and the system ended a process.",
        "Fewer data workers, fewer processes per node, a smaller max length; Ray: raise its object store or give it "
        "more memory.",
    ),
    (
        _ZERO,
        r"(all|every|mean|avg|average)[ _/a-z]*rewards?[^\n]{0,20}?[:= ]+(are |is )?(all )?(0\.0+|0|zero)(?![.\w])"
        r"|rewards? (are )?all[- ](0|zero)|['\"]reward['\"]: ['\"]?0(\.0+)?['\"]?[,}]"
        r"|critic/(rewards|score)/(mean|max): ?(np\.float64\()?0(\.0+)?(?![.\w])"
        r"|\brewards?[:= ]+0(\.0+)? (for|on|in) (all|every)\b|\brewards?['\"]?[:= ]+\[(0(\.0*)?[, ]*){2,}\]"
        r"|\btrain/rewards?['\"]?[:= ]+0(\.0+)?(?![.\w])"
        r"|all[- ]zero[ -]rewards?|zero rewards? (only|everywhere)",
        "No attempt is right: the answer is not found in what the policy writes, the task is too hard for it, or the reward "
        "function gets nothing to compare with.",
        "See attempts and expected answers side by side (TRL: log_completions; rollforge show ROLLOUTS); rollforge check "
        "FILE --for FRAMEWORK:grpo says which rows have no answer.",
    ),
    (
        "mixed objects",
        r"Couldn't cast (array of type|\S+:)|DatasetGenerationError|changed from (object|string|number|array)"
        r"|ArrowInvalid.*straddl"
        r"|column names don't match",
        "datasets fixes the schema from the first 10 MB of a JSON file, and a later row has a key or type that is not in "
        "it: another tool's argument, the first tool call, a new column.",
        "rollforge check FILE names line and key. Put one row of every set of keys first (rollforge export does), or write "
        "tools and arguments as JSON text.",
    ),
    (
        "defaults not found",
        r"FileNotFoundError.*(grpo_math_1B|/sft|/dpo)\b|No such file or directory: '[^']*(grpo_math_1B|/sft|/dpo)'",
        "NeMo RL takes defaults: as a path with .yaml, relative to the YAML that names it; a bare name is not searched for.",
        "defaults: /path/to/nemo-rl/examples/configs/grpo_math_1B.yaml (absolute works from everywhere).",
    ),
    (
        "wrong script",
        r"can't open file .*run_grpo_(math|rm)\.py",
        "NeMo RL 0.6 removed examples/run_grpo_math.py and run_grpo_rm.py.",
        "Use examples/run_grpo.py (from 0.5 on).",
    ),
    (
        "data section of an older version",
        r"data\.train\s+Field required|Field required.*data\.train|migrat\w+.*data\.train",
        "The configuration has data.train_data_path, the shape of NeMo RL 0.4 and 0.5; from 0.6 on it is "
        "data.train.data_path. With a parent configuration the old keys are ignored and the parent's data set is trained "
        "instead.",
        "data: {_override_: true, train: {data_path: /abs/train.jsonl}, validation: null, default: {dataset_name: ...}}.",
    ),
    (
        "relative data path",
        r"IndexError: string index out of range",
        "NeMo RL derives a task's name from the path, and ./train.jsonl leaves none.",
        "Use absolute paths in data.train.data_path.",
    ),
    (
        "blank line",
        r"JSONDecodeError: Expecting value: line \d+ column 1 \(char 0\)",
        "A line of the file is blank (or begins with a byte order mark): NeMo RL's openai_format and NemoGymDataset "
        "read line by line.",
        "sed -i '/^[[:space:]]*$/d' FILE; rollforge check FILE names the line.",
    ),
    (
        "broken JSON",
        r"JSONDecodeError|ArrowInvalid: JSON parse error|Failed to load JSON from file",
        "A line is no JSON.",
        "rollforge check FILE names line and column.",
    ),
    (
        "empty data",
        r"\bStopIteration\b|SchemaInferenceError|num_samples=0|empty (data ?set|dataloader)|dataloader is empty"
        r"|at least one complete gradient-accumulation window",
        "The file has no rows, or fewer than one batch: an incomplete last batch is dropped.",
        "rollforge check FILE counts the rows; make the batch no larger than the data (train_global_batch_size, "
        "num_prompts_per_step; verl: data.train_batch_size, 1024 unless set; OpenRLHF: --train.batch_size).",
    ),
    (
        "add_bos",
        r"TypeError.*add_bos|unexpected keyword argument 'add_bos'",
        "NeMo RL's SFT needs processor: sft_processor; without it the rows go to the processor of math prompts.",
        "Set data.default.processor: sft_processor.",
    ),
    (
        "duplicate column",
        r"ValueError:.*duplicate\w* column|columns? .*task_name.* (already|duplicat)",
        "The rows have a task_name, which NeMo RL adds itself to files with messages and to preference data.",
        "Remove task_name from the rows; tasks are told apart by file (one data.train entry each).",
    ),
    (
        "validation without data",
        r"AssertionError.*(validation|val_period|val_at_start|val_dataset)",
        "Validation is on by default and there is no validation data.",
        "Set val_period: 0 and val_at_start: false (GRPO: val_at_end too), and checkpointing.metric_name: null.",
    ),
    (
        "non-contiguous tokens",
        r"Non-contiguous messages found",
        "A prompt does not begin with the tokens seen so far: the chat template or the agent rewrote earlier turns.",
        "Send prompt_token_ids and generation_token_ids back on the last assistant message, and keep earlier "
        "reasoning in place.",
    ),
    (
        "nothing generated",
        r"no generation data",
        "A rollout has no item with generation_token_ids: it died before the first token, or the model server does "
        "not return ids.",
        "Use vllm_model_for_training.yaml (return_token_id_information: true), and leave failed rollouts out.",
    ),
    (
        "ties",
        r"(ranks?|completions).*(tie|equal|same rank)",
        "Two completions of a pair have the same rank.",
        "Give the better one the lower rank (0 and 1).",
    ),
    (
        "no such key in the configuration",
        r"Could not override|is not in struct|ConfigAttributeError|ConfigKeyError",
        "Hydra takes only keys that the configuration has: the key is misspelt, or of another version of verl or NeMo RL.",
        "rollforge check FILE --for verl:grpo --config run.sh names keys that moved. A key that is to be new is "
        "written +key=value.",
    ),
    (
        "generations do not divide the batch",
        r"generation_batch_size .{0,60}divisible by|divisible by the number of generations"
        r"|batch_size .{0,90}divisible by .{0,40}num_generations",
        "TRL's GRPO makes num_generations completions of each prompt; one generation batch (per_device_train_batch_size x "
        "processes x steps_per_generation) must hold whole groups, evaluation batches too.",
        "Choose a batch that num_generations divides, e.g. num_generations: 8, per_device_train_batch_size: 8.",
    ),
    (
        "text where messages are wanted",
        r"'str object' has no attribute '(role|content)'",
        "A chat template got a text where it goes through messages: the column is text (JSON text, too).",
        "Write the prompt as a list of {role, content}; a Parquet column of JSON text needs the data set class that "
        "rollforge export --to verl:sft writes beside it. For plain text leave the template out (OpenRLHF: "
        "--data.apply_chat_template).",
    ),
    (
        "text and messages joined",
        r"can only concatenate (str|list) \(not [\"'\\]*(list|str)",
        "Prompt and answer are joined, and one is text where the other is a list: messages beside text, or content that is "
        "a list of parts, which templates for text cannot join.",
        "Write both as text or both as lists of messages, and content as text; rollforge check FILE --for ... names the "
        "line.",
    ),
    (
        "input ids differ",
        r"AssertionError.*input_ids|ignore_input_ids_mismatch",
        "verl templates each message alone and compares with the whole; templates that write <think> at the last turn only "
        "(Qwen3) differ, with and without reasoning in the messages.",
        "A chat template that writes every turn alike, as chat_template.jinja in a copy of the model (TRL brings some: "
        "chat_templates/qwen3_training.jinja). data.ignore_input_ids_mismatch=True runs, but trains on turns without their "
        "reasoning.",
    ),
    (
        "tools of the wrong type",
        r"Tools should either be a JSON schema",
        "verl's SFT data set hands the tools column to the template as it is, and here it is JSON text.",
        "Use the data set class that rollforge export --to verl:sft writes beside the data (data.custom_cls.path).",
    ),
    (
        "unknown data source",
        r"Reward function is not implemented for data_source|NotImplementedError.*data_source",
        "verl has no reward function of its own for this data_source.",
        "reward.custom_reward_function.path=FILE.py with compute_score (rollforge export --to verl:grpo writes one).",
    ),
    (
        "an agent loop that is not registered",
        r"Agent loop \S+ not registered",
        "The rows have an agent_name that verl does not know: single_turn_agent and tool_agent are its own.",
        "Name yours in a file of actor_rollout_ref.rollout.agent.agent_loop_config_path, or write tool_agent.",
    ),
    (
        "reward server",
        r"reward_model_group is required",
        "OpenRLHF got no reward: the reward server did not answer five times in a row.",
        'Look at the server behind --reward.remote_url; it must answer within 180 s with {"rewards": [...]}.',
    ),
    (
        "flags of another version",
        r"unrecognized arguments?:.*--(data\.|train\.|reward\.|input_key|prompt_data|dataset|apply_chat_template"
        r"|remote_rm_url|pretrain|ckpt_path|zero_stage|micro_train_batch_size|actor\.|ckpt\.|ds\.)",
        "OpenRLHF's flags are dotted from 0.10.2 on (--data.input_key) and flat before (--input_key).",
        "Export for the version you run: rollforge export ... --to openrlhf:... --target-version openrlhf=0.11 (or 0.10.1).",
    ),
    (
        "no training template",
        r"\{% ?generation ?%\}|assistant_only_loss.*(template|generation)",
        "assistant_only_loss needs a chat template that marks what the assistant said.",
        "Leave assistant_only_loss off and use prompt and completion (--to trl:sft-prompt-completion), or a template "
        "with {% generation %}.",
    ),
    (
        "too long",
        r"(exceeds?|longer than|larger than).{0,40}(max(imum)?[_ ](model[_ ])?(len|length|position|seq)"
        r"|context length|max_model_len)",
        "A prompt or answer is longer than the maximum length.",
        "Raise the maximum length, or leave such rows out: rollforge curate --filter 'tokens < 4000'.",
    ),
    (
        "login",
        r"gated repo|401 Client Error|Cannot access gated|Invalid user token|huggingface-cli login|hf auth login",
        "The model is gated, and this machine is not logged in to the Hugging Face hub.",
        "hf auth login, or export HF_TOKEN=...; set HF_HOME if the cache is elsewhere.",
    ),
    (
        "weights and biases",
        r"wandb.*(api[_ ]key|not logged in|login)|WANDB_API_KEY",
        "W&B has no key.",
        "export WANDB_API_KEY=..., wandb login, or switch it off (logger.wandb_enabled: false; report_to: none).",
    ),
    (
        "NCCL",
        r"NCCL (error|timeout|WARN)|ncclSystemError|ncclUnhandledCudaError|Watchdog caught collective operation timeout",
        "The GPUs could not talk to each other; often another rank failed first.",
        "Look for the first error of any rank; then NCCL_DEBUG=INFO, and NCCL_SOCKET_IFNAME for the network interface.",
    ),
)
_KNOWN = tuple(_known())
_MAYBE = re.compile(
    r"error|\boom\b|exception|reward|pairs|killed|exit|cast|assert|stop|required|argument|memory|template|exceed|longer"
    r"|larger|tools|attribute|override|struct|divisible|concatenate|gradient"
    r"|login|nccl|watchdog|generation|rank|match|wandb|gated|mismatch|registered|found|changed|migrat|empty"
    r"|num_samples|no such",
    re.IGNORECASE,
)
"""A line without any of these is none of the above: logs are long, and the patterns many."""
