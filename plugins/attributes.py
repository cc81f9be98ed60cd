"""The attributes of an op as keyword arguments: of functions in Python, and of its CPU kernel.

`plugins/_native.pyi` has a type of each op's attributes, such as `PanopticMergeAttributes`, for a function that passes
them on:

    @takes(PANOPTIC_MERGE)
    def panoptic_merge(..., **attributes: Unpack[_native.PanopticMergeAttributes]) -> PanopticSegments:
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .schema import Op

Function = TypeVar("Function", bound=Callable[..., Any])

NHWC = "nhwc"  # the argument of CPU kernels that says how features lie


def takes(op: Op) -> Callable[[Function], Function]:
    """Return a decorator that gives a function with `**attributes` the signature with each attribute of an op.

    It is what `help` and editors show; a call is checked by `complete`.
    """
    named = [
        inspect.Parameter(
            attribute.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if attribute.default is None else attribute.default,
            annotation=attribute.python_type,
        )
        for attribute in op.attributes
    ]

    def show(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [
            parameter for parameter in signature.parameters.values() if parameter.kind != inspect.Parameter.VAR_KEYWORD
        ]
        tensors = [parameter for parameter in own if parameter.kind != inspect.Parameter.KEYWORD_ONLY]
        parameters = [*tensors, *named, *own[len(tensors) :]]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        hints = {parameter.name: parameter.annotation for parameter in parameters if parameter.name != "self"}
        function.__annotations__ = {**hints, "return": signature.return_annotation}
        return function

    return show


def complete(op: Op, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return all attributes of an op: these, and the defaults of those that may be omitted.

    Raises:
        TypeError: one is missing, or is not an attribute of the op; the message names it.
    """
    given = {**op.defaults, **attributes}
    if given.keys() != op.attribute_names:
        raise _wrong_names(op, given)
    return given


def _wrong_names(op: Op, given: Mapping[str, Any]) -> TypeError:
    expected = ", ".join(attribute.name for attribute in op.attributes)
    for name in given:
        if name not in op.attribute_names:
            return TypeError(f"{op.function}: got {name!r}, which is not an attribute of it; expected {expected}")
    missing = next(attribute for attribute in op.attributes if attribute.name not in given)
    return TypeError(
        f"{op.function}: the attribute {missing.name} ({missing.python_type}, {missing.note}) is missing; "
        f"expected {expected}"
    )


def kernel_arguments(op: Op) -> dict[str, str]:
    """Return the keyword arguments of an op's CPU kernel, each with its type in Python.

    They are the attributes but for those that the shape of an output shows; a height and width are two arguments.
    """
    arguments: dict[str, str] = {}
    for attribute in op.attributes:
        if attribute.shown:
            continue
        if attribute.name.endswith("_hw"):
            arguments.update((f"{attribute.name[:-3]}_{part}", "int") for part in attribute.length)
        elif attribute.length:
            arguments[attribute.name] = "Sequence[float]"  # also of strides, by which coordinates are divided
        else:
            arguments[attribute.name] = attribute.type
    if op.has_features:
        arguments[NHWC] = "bool"
    return arguments


def kernel_options(op: Op, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return these attributes as the keyword arguments of the op's CPU kernel, all but `nhwc`."""
    options: dict[str, Any] = {}
    for attribute in op.attributes:
        value = attributes[attribute.name]
        if attribute.shown:
            continue
        if attribute.name.endswith("_hw"):
            options.update(zip((f"{attribute.name[:-3]}_{part}" for part in attribute.length), value, strict=True))
        else:
            options[attribute.name] = value
    return options
