"""The base's layer matrices with an adapter merged into them, one at a time.

Nothing larger than a layer is held: an artifact of a 4 GB base is written in less than a gigabyte.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from autotune.errors import AssemblyError
from autotune.pipeline.architectures import tensor_files
from autotune.pipeline.builder import first_line
from autotune.pipeline.layer_weights import LayerWeight

_ADAPTER_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."

#: Rows of a matrix that an adapter's change is added to at a time.
_ROWS = 128

#: What PEFT may set that would change other weights than layer matrices, or merge by another formula.
_PLAIN = {
    "peft_type": "LORA", "bias": "none", "fan_in_fan_out": False, "lora_bias": False, "modules_to_save": None,
    "rank_pattern": {}, "alpha_pattern": {}, "layer_replication": None, "trainable_token_indices": None,
    "target_parameters": None, "use_qalora": False, "alora_invocation_tokens": None,
}


class MergedWeights:
    """Layer matrices of ``base`` (safetensors) with ``adapter`` (PEFT's own format; None for the base itself).

    LoRA: W + s·BA with s = alpha / r, or alpha / √r where rank-stabilized (arXiv 2106.09685, 2312.03732);
    DoRA: m · (W + s·BA) / ‖W + s·BA‖ by rows (arXiv 2402.09353). In fp32 whatever the base is stored in,
    since adding a small update to bf16 weights loses most of it; in PEFT's own order of operations, so to
    the last bit what its ``merge_and_unload`` gives.

    Raises AssemblyError when the adapter is missing or is one that this cannot merge.
    """

    def __init__(self, base: Path, adapter: Path | None) -> None:
        self._base, self._adapter = base, adapter
        self._files = tensor_files(base)
        self._open: dict[Path, Any] = {}
        self._scale, self._dora = 0.0, False
        self._tensors: dict[str, torch.Tensor] = {}
        self._last: tuple[str, torch.Tensor] | None = None
        if adapter is not None:
            self._read_adapter(adapter)

    def __enter__(self) -> MergedWeights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        self._last = None

    def modules(self) -> set[str]:
        """The matrices that the adapter changes, as the checkpoint names them."""
        return {name.removesuffix(".lora_A.weight") for name in self._tensors if name.endswith(".lora_A.weight")}

    def changes(self, weight: LayerWeight) -> bool:
        """Whether the adapter touches any part of ``weight``."""
        return any(f"{part.module}.lora_A.weight" in self._tensors for part in weight.parts)

    def matrix(self, weight: LayerWeight) -> torch.Tensor:
        """``weight`` as the checkpoint orients it, [out, in], fp32.

        Raises AssemblyError when the adapter does not fit the base or the result is not finite.
        """
        rows = [self._module(part.module)[part.start : part.stop] for part in weight.parts]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def _module(self, module: str) -> torch.Tensor:
        # A fused matrix of the checkpoint is asked for once a part.
        if self._last is None or self._last[0] != module:
            self._last = (module, self._merged(module))
        return self._last[1]

    def _merged(self, module: str) -> torch.Tensor:
        base = self._read(f"{module}.weight")
        down = self._tensors.get(f"{module}.lora_A.weight")
        if down is None:
            return base.float()
        up = self._tensors[f"{module}.lora_B.weight"]
        if (up.shape[0], down.shape[1]) != tuple(base.shape) or up.shape[1] != down.shape[0]:
            raise AssemblyError(f"{self._adapter}: {module}: {tuple(up.shape)} by {tuple(down.shape)} found; accepted "
                                f"is what makes the base's {tuple(base.shape)}")
        merged = torch.mm(up.float(), down.float())
        # In pieces, whose widened copies stay in a cache.
        for piece, of_base in zip(torch.split(merged, _ROWS), torch.split(base, _ROWS), strict=True):
            piece.mul_(self._scale).add_(of_base.float())
        if self._dora:
            magnitude = self._tensors[f"{module}.lora_magnitude_vector"].float()
            merged = (magnitude / torch.linalg.norm(merged, dim=1)).view(-1, 1) * merged
        if not torch.isfinite(torch.stack(torch.aminmax(merged))).all():
            raise AssemblyError(f"{self._adapter}: {module}: not finite once merged; the adapter is broken")
        return merged

    def _read(self, name: str) -> torch.Tensor:
        path = self._files[name]
        if path not in self._open:
            self._open[path] = safe_open(path, framework="pt")
        tensor: torch.Tensor = self._open[path].get_tensor(name)
        return tensor

    def _read_adapter(self, adapter: Path) -> None:
        path = adapter / _ADAPTER_FILE
        if not path.is_file():
            raise AssemblyError(f"{adapter}: no {_ADAPTER_FILE} found; accepted is a folder that PEFT saved so")
        try:
            config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())  # no dict, in spite of the method
                self._tensors = {name.removeprefix(_PREFIX): file.get_tensor(name) for name in names}
        except (OSError, ValueError, SafetensorError) as error:
            raise AssemblyError(f"{adapter}: cannot be read: {first_line(error)}") from error
        self._check(adapter, config)
        self._dora = bool(config.get("use_dora"))
        root = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
        self._scale = config["lora_alpha"] / root

    def _check(self, adapter: Path, config: Mapping[str, Any]) -> None:
        for key, plain in _PLAIN.items():
            if config.get(key, plain) not in (plain, None):
                raise AssemblyError(f"{adapter}: adapter_config.json: {key}: {config[key]!r} found; accepted is "
                                    f"{plain!r}, for only then it changes layer matrices alone")
        kinds = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
        odd = [name for name in self._tensors if not name.endswith(kinds)]
        absent = [module for module in sorted(self.modules()) if f"{module}.weight" not in self._files]
        if odd or absent:
            raise AssemblyError(f"{adapter}: cannot be merged into {self._base.name}: {(odd or absent)[0]} has no "
                                "place there")
