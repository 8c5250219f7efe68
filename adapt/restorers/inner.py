"""Names of tensors of a network inside a module: as if the module were the network itself."""

from __future__ import annotations

from torch import Tensor, nn

INNER = "network."


def named_as_inner(module: nn.Module) -> None:
    """Have the state dict of a module whose only part is its `network` name the tensors as that network does, so that
    other tools open what is written of it."""
    module.register_state_dict_post_hook(_without_prefix)
    module.register_load_state_dict_pre_hook(_with_prefix)


def _without_prefix(module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: object) -> None:
    for key in [key for key in state if key.startswith(prefix + INNER)]:
        state[prefix + key.removeprefix(prefix + INNER)] = state.pop(key)


def _with_prefix(module: nn.Module, state: dict[str, Tensor], prefix: str, *_rest: object) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + INNER + key.removeprefix(prefix)] = state.pop(key)
