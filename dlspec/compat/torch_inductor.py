"""Compiling a function of tensors with Inductor, without `torch._dynamo` in front of it.

`torch.compile` checks at every call that its result still fits: the types and shapes of all arguments, and the Python
objects that the function reads. For a step of a small network, that takes as long as the step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"

TensorFunction = Callable[..., Sequence[Tensor]]


def compile_tensor_function(
    function: TensorFunction, arguments: Sequence[Tensor], options: Mapping[str, Any], cache: Path
) -> TensorFunction:
    """Compile a function for tensors of these shapes. It is traced once: its Python code never runs again.

    Args:
        function: takes tensors and returns tensors. It may update its arguments in place.
        arguments: tensors of the shapes to compile for; they are not changed.
        options: options of Inductor.
        cache: the folder to keep compiled code in, unless the environment names another one.

    Returns:
        The compiled function, which does not check its arguments.
    """
    os.environ.setdefault(CACHE_VARIABLE, str(cache))  # before the imports, which set it, too
    from torch._inductor import compile as compile_graph
    from torch.fx.experimental.proxy_tensor import make_fx

    # Fake arguments: nothing is computed or drawn. Other tensors, such as class weights, are constants of the code.
    trace = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)
    with torch.no_grad():
        graph = trace(*arguments)
        compiled: TensorFunction = compile_graph(graph, list(arguments), options=dict(options))
    return compiled


def keep_addresses(tensors: Iterable[Tensor]) -> None:
    """Tell the compiler that tensors stay where they are, as CUDA graphs that change them require."""
    from torch._dynamo import mark_static_address

    for each in tensors:
        mark_static_address(each)
