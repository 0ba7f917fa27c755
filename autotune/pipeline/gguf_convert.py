"""GGUF weights → a Hugging Face folder, through transformers' own GGUF support.

transformers drops some of what a GGUF file says without a word (scaled RoPE, biases its class does not
have). A file that uses them is refused here: a base model that is subtly wrong spoils every trial after it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autotune.errors import BaseModelError
from autotune.pipeline.base_model import problem
from autotune.pipeline.gguf_file import GgufHeader, copy_without_vocabulary, read_header
from autotune.pipeline.progress import Report, silent
from autotune.pipeline.silence import silenced

#: general.architecture → transformers' tokenizer type; None where the GGUF alone decides.
#: Mistral models call themselves llama. SmolLM3 and Granite are not mapped by transformers.
GGUF_ARCHITECTURES: dict[str, str | None] = {
    "llama": None,
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": None,
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
}
_NAMES = "llama (Llama, Mistral), qwen2 (Qwen2, Qwen2.5), qwen3, phi3, gemma2, gemma3"
_SAMPLES = (
    "### Text: Wait, you two are brothers?\n### The tone is:\n",
    "  two  spaces,\ttab\r\n\n\nand 1234567 digits ",
    "Ünïcödé 日本語 😀 naïve don't I'LL e.g. x=3.14;",
    "def f(a):\n    return a + 1\n",
    "",
)


def require_convertible(header: GgufHeader) -> None:
    """Refuse a file whose architecture is not mapped, or that uses what the conversion would lose.

    Raises:
        BaseModelError: naming the key of the header, what it says, and what is accepted.
    """
    architecture = header.architecture
    if architecture not in GGUF_ARCHITECTURES:
        hint = "; other supported models as a Hugging Face folder or hub name"
        raise problem(header.path, "general.architecture", repr(architecture), _NAMES + hint)
    accepted = "the same model as a Hugging Face folder or hub name"
    scaling = header.own("rope.scaling.type")
    factor = header.own("rope.scaling.factor")
    extra = sorted(name for name in header.tensor_types if name.startswith(("rope_freqs", "rope_factors")))
    if scaling not in (None, "none") or extra or (factor is not None and factor != 1.0):
        found = f"scaled rotary positions ({extra[0] if extra else scaling or factor}), lost in conversion"
        raise problem(header.path, f"{architecture}.rope", found, accepted)
    if header.own("expert_count"):
        raise problem(header.path, f"{architecture}.expert_count", "a mixture of experts", "a dense model")
    if architecture == "gemma2" and header.own("block_count") == 46:
        # Its attention scale is not in the file, and transformers assumes the smaller models' scale.
        raise problem(header.path, "gemma2.block_count", "Gemma 2 27B, converted wrongly", accepted)


def convert(file: Path, out: Path, report: Report = silent) -> None:
    """Write the Hugging Face folder of a .gguf file to ``out``, which must not exist.

    Weights are dequantized to float32 (bfloat16 where the file itself holds bfloat16).

    Raises:
        BaseModelError: damaged file, unsupported architecture, tensors that do not fit, or a tokenizer that
            does not come back from the folder as it was.
    """
    header = read_header(file)
    require_convertible(header)
    out.mkdir(parents=True)
    with silenced():
        report(0.05, 1.0, "reading the weights")
        model = _load_model(header, out)
        report(0.6, 1.0, "writing the weights")
        _settle_configs(model, header)
        model.save_pretrained(out)
        # save_pretrained leaves model.safetensors readable by its owner alone.
        (out / "model.safetensors").chmod((out / "config.json").stat().st_mode & 0o777)
        del model
        report(0.7, 1.0, "reading the tokenizer")
        tokenizer = _load_tokenizer(header)
        tokenizer.save_pretrained(out)
        vocabulary = header.array_lengths.get("tokenizer.ggml.tokens", 0)
        if len(tokenizer) > vocabulary:
            _drop_invented_tokens(out / "tokenizer.json", vocabulary)
        report(0.85, 1.0, "checking the tokenizer")
        _check_tokenizer(tokenizer, header, out)
    report(1.0, 1.0, "converted")


def _load_model(header: GgufHeader, out: Path) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    slim = out / "weights.gguf"
    copy_without_vocabulary(header, slim)
    try:
        config = AutoConfig.from_pretrained(out, gguf_file=slim.name)
        _correct_config(config, header)
        dtype = torch.bfloat16 if header.is_bf16 else torch.float32
        model, info = AutoModelForCausalLM.from_pretrained(
            out, gguf_file=slim.name, config=config, dtype=dtype, output_loading_info=True
        )
    except Exception as error:  # whatever a damaged file makes a foreign parser raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _not_loadable(header, first) from error
    finally:
        slim.unlink(missing_ok=True)
    if info["missing_keys"] or info["mismatched_keys"]:
        absent = sorted(str(key) for key in (*info["missing_keys"], *info["mismatched_keys"]))
        raise _not_loadable(header, f"no fitting tensor for {', '.join(absent[:3])}")
    parameters = sum(1 for _ in model.parameters())
    if parameters != len(header.tensor_types):
        found = f"{len(header.tensor_types)} tensors where {type(model).__name__} has {parameters}"
        raise _not_loadable(header, found)
    return model


def _not_loadable(header: GgufHeader, found: str) -> BaseModelError:
    accepted = f"a whole {header.architecture} model as llama.cpp writes it"
    return problem(header.path, "", f"transformers cannot load it: {found}", accepted)


def _correct_config(config: Any, header: GgufHeader) -> None:
    """Keys that the file states and transformers leaves at its class's default."""
    head_dim = header.own("attention.key_length")
    if head_dim is not None and hasattr(config, "head_dim"):
        config.head_dim = head_dim
    window, context = header.own("attention.sliding_window"), header.own("context_length")
    if header.architecture == "phi3" and isinstance(window, int) and isinstance(context, int):
        config.sliding_window = window if window < context else None


def _settle_configs(model: Any, header: GgufHeader) -> None:
    """Make the model one that was never quantized, with every token that ends an answer."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    config.architectures = [type(model).__name__]
    config._name_or_path = ""
    end, turn = (header.scalars.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot"))
    ends = [token for token in dict.fromkeys((end, turn)) if isinstance(token, int)]
    if len(ends) > 1:
        model.generation_config.eos_token_id = ends


def _load_tokenizer(header: GgufHeader) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kind = GGUF_ARCHITECTURES[header.architecture]
    where, name = header.path.parent, header.path.name
    try:
        if kind is None:
            return PreTrainedTokenizerFast.from_pretrained(where, gguf_file=name)
        # Naming the type spares a reading of the whole file to find it out.
        return AutoTokenizer.from_pretrained(where, gguf_file=name, tokenizer_type=kind)
    except Exception as error:  # as above; tokenizers raises bare Exception
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise problem(header.path, "tokenizer", first, "a file that holds its model's tokenizer") from error


def _drop_invented_tokens(file: Path, vocabulary: int) -> None:
    """Byte-level tokenizers gain an ``<|endoftext|>`` past the last embedding when read; take it out again."""
    content = json.loads(file.read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < vocabulary]
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _check_tokenizer(tokenizer: Any, header: GgufHeader, out: Path) -> None:
    """The folder's tokenizer gives the GGUF one's ids, and BOS and EOS are those that the file names."""
    from transformers import AutoTokenizer

    reloaded = AutoTokenizer.from_pretrained(out)
    for sample in _SAMPLES:
        if reloaded(sample).input_ids != tokenizer(sample).input_ids:
            raise problem(header.path, "tokenizer", f"changes when saved ({sample!r})", "a stable tokenizer")
    keys = header.scalars
    for name, have in (("bos", reloaded.bos_token_id), ("eos", reloaded.eos_token_id)):
        said = keys.get(f"tokenizer.ggml.{name}_token_id")
        if said is not None and have != said:
            where = f"tokenizer.ggml.{name}_token_id"
            raise problem(header.path, where, f"{said}, read as {have}", "a token of the vocabulary")
    is_sentencepiece = keys.get("tokenizer.ggml.model") == "llama"
    wants_bos = bool(keys.get("tokenizer.ggml.add_bos_token", is_sentencepiece))
    has_bos = reloaded("a").input_ids[0] == reloaded.bos_token_id
    if wants_bos != has_bos:
        found = f"{wants_bos}, but the converted tokenizer {'adds' if has_bos else 'lacks'} it"
        accepted = "a tokenizer that transformers can read"
        raise problem(header.path, "tokenizer.ggml.add_bos_token", found, accepted)
    tokens = header.array_lengths.get("tokenizer.ggml.tokens", 0)
    if len(reloaded) > tokens:
        found = f"{len(reloaded)} tokens once converted, {tokens} in the file"
        accepted = "as many tokens as the model has embeddings"
        raise problem(header.path, "tokenizer.ggml.tokens", found, accepted)
