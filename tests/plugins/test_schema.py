"""The schema of the ops, and that everything written beside it says the same."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest

from panrt.model.custom_ops import CustomOps
from panrt.plugins import contract, legends, native, reference, schema
from panrt.plugins.schema import ALL_OPS, OPS, Op
from tools import cuda_ops, generate_ops

PYTHON_ONLY = {"layout", "threads", "gpu", "order", "self"}  # of no node
RESULTS = {"RpnProposals": "Proposals", "BoxDetections": "Detections", "PanopticMerge": "PanopticSegments"}

every_op = pytest.mark.parametrize("op", ALL_OPS, ids=[op.key for op in ALL_OPS])


FORMS = [
    (form, op)
    for form in (reference, native, cuda_ops, CustomOps)  # the network calls the last
    for op in ALL_OPS
    if hasattr(form, op.function)
]


def test_the_reference_has_every_op_and_other_forms_have_some() -> None:
    assert [op.key for form, op in FORMS if form is reference] == [op.key for op in ALL_OPS]
    assert {form for form, _ in FORMS} == {reference, native, cuda_ops, CustomOps}


@pytest.mark.parametrize(("form", "op"), FORMS)
def test_python_functions_have_the_arguments_and_defaults_of_the_schema(form: ModuleType | type, op: Op) -> None:
    found = dict(inspect.signature(getattr(form, op.function)).parameters)
    arguments = [name for name in found if name not in PYTHON_ONLY]
    assert arguments == [tensor.name for tensor in op.inputs] + [attribute.name for attribute in op.attributes]
    for attribute in op.attributes:
        default = found[attribute.name].default
        assert (None if default is inspect.Parameter.empty else default) == attribute.default, attribute.name


@pytest.mark.parametrize(("op", "result"), RESULTS.items())
def test_results_have_the_outputs_of_the_schema(op: str, result: str) -> None:
    assert list(getattr(contract, result)._fields) == [tensor.name for tensor in OPS[op].outputs]


@every_op
def test_every_letter_has_bounds_and_every_output_a_size(op: Op) -> None:
    def letters(tensors: Any) -> set[str]:
        return {name for t in tensors for word in legends.words(t.legend) for term in word for name in term.letters}

    bound = letters(op.inputs) | {letter for attribute in op.attributes for letter in attribute.sizes}
    assert letters(op.inputs) <= schema.LETTERS.keys()
    assert letters(op.outputs) <= bound
    for tensor in op.inputs:
        for word in legends.words(tensor.legend):  # what an array's shape is matched with
            assert [len(term.letters) for term in word] in ([1], [0], [1, 0]), tensor


@every_op
def test_kernel_arguments_are_filled_from_what_the_op_has(op: Op) -> None:
    # All versions of an op have one struct: that of the first, with what the second reads from inputs.
    first = OPS[op.name]
    settings = [setting.tensor for setting in first.settings]
    tensors = {tensor.name: tensor for tensor in (*first.inputs, *first.outputs, *settings)}
    letters = {"L", *schema.LETTERS}
    attributes = first.attribute_names
    for field in (*op.fields, *op.level_fields):
        known = {"tensor": tensors, "type": tensors, "layout": tensors, "size": letters, "attribute": attributes}
        if field.source in known:
            assert field.of.split("[")[0] in known[field.source], field
    pointers = [field.of for field in (*op.level_fields, *op.fields) if field.source == "tensor"]
    assert pointers == list(tensors)


def test_generated_files_are_what_the_schema_gives() -> None:
    for path, text in generate_ops.files().items():
        assert path.read_text() == generate_ops.formatted(path, text), "run  python -m tools.generate_ops"


def test_legends_are_sums_of_products() -> None:
    sizes = {"N": 2, "R": 3, "C": 5, "K": 7, "S": 11}
    assert legends.shape("N 4C C+1 K+S N*R 8", sizes) == (2, 20, 6, 18, 6, 8)
    with pytest.raises(AssertionError):
        legends.words("N-1")
