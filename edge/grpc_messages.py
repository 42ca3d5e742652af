"""The messages of the protocol's GRPCInferenceService, made at import of the names and numbers that it publishes.

Protocol: https://github.com/kserve/open-inference-protocol (specification/protocol/open_inference_grpc.proto); the repository's
index as Triton has it. They live in a descriptor pool of their own: another package's messages of the same names do not matter.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
TENSOR = (
    "string name 1",
    "string datatype 2",
    "repeated int64 shape 3",
    "map InferParameter parameters 4",
    "InferTensorContents contents 5",
)
METADATA = ("string name 1", "string datatype 2", "repeated int64 shape 3")
FIELDS: dict[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live 1",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready 1",),
    "ModelReadyRequest": ("string name 1", "string version 2"),
    "ModelReadyResponse": ("bool ready 1",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name 1", "string version 2", "repeated string extensions 3"),
    "ModelMetadataRequest": ("string name 1", "string version 2"),
    "ModelMetadataResponse": (
        "string name 1",
        "repeated string versions 2",
        "string platform 3",
        "repeated ModelMetadataResponse.TensorMetadata inputs 4",
        "repeated ModelMetadataResponse.TensorMetadata outputs 5",
    ),
    "ModelMetadataResponse.TensorMetadata": METADATA,
    "InferParameter": (
        "choice bool bool_param 1",
        "choice int64 int64_param 2",
        "choice string string_param 3",
        "choice double double_param 4",
        "choice uint64 uint64_param 5",
    ),
    "InferTensorContents": (
        "repeated bool bool_contents 1",
        "repeated int32 int_contents 2",
        "repeated int64 int64_contents 3",
        "repeated uint32 uint_contents 4",
        "repeated uint64 uint64_contents 5",
        "repeated float fp32_contents 6",
        "repeated double fp64_contents 7",
        "repeated bytes bytes_contents 8",
    ),
    "ModelInferRequest": (
        "string model_name 1",
        "string model_version 2",
        "string id 3",
        "map InferParameter parameters 4",
        "repeated ModelInferRequest.InferInputTensor inputs 5",
        "repeated ModelInferRequest.InferRequestedOutputTensor outputs 6",
        "repeated bytes raw_input_contents 7",
    ),
    "ModelInferRequest.InferInputTensor": TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": ("string name 1", "map InferParameter parameters 2"),
    "ModelInferResponse": (
        "string model_name 1",
        "string model_version 2",
        "string id 3",
        "map InferParameter parameters 4",
        "repeated ModelInferResponse.InferOutputTensor outputs 5",
        "repeated bytes raw_output_contents 6",
    ),
    "ModelInferResponse.InferOutputTensor": TENSOR,
    "RepositoryIndexRequest": ("string repository_name 1", "bool ready 2"),
    "RepositoryIndexResponse": ("repeated RepositoryIndexResponse.ModelIndex models 1",),
    "RepositoryIndexResponse.ModelIndex": ("string name 1", "string version 2", "string state 3", "string reason 4"),
}
"""Message → its fields: `repeated`, `map` (of strings to) or `choice` (a oneof), type, name and number."""
CHOICE = "parameter_choice"
Field = descriptor_pb2.FieldDescriptorProto


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference_grpc.proto", package=PACKAGE, syntax="proto3")
    made: dict[str, Any] = {}
    for name, fields in FIELDS.items():
        outer, _, inner = name.rpartition(".")
        made[name] = (made[outer].nested_type if outer else file.message_type).add(name=inner)
        for field in fields:
            _add(made[name], name, field.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in FIELDS}


def _add(message: Any, owner: str, words: list[str]) -> None:
    *kind, type_name, name, number = words
    field = message.field.add(name=name, number=int(number), label=Field.LABEL_OPTIONAL)
    if kind == ["map"]:
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        for part in (["string", "key", "1"], [type_name, "value", "2"]):
            _add(entry, owner, part)
        type_name = f"{owner}.{entry.name}"
    if kind in (["repeated"], ["map"]):
        field.label = Field.LABEL_REPEATED
    if kind == ["choice"]:
        if not message.oneof_decl:
            message.oneof_decl.add(name=CHOICE)
        field.oneof_index = 0
    if type_name[0].isupper():
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{type_name}"
    else:
        field.type = Field.Type.Value(f"TYPE_{type_name.upper()}")


MESSAGES = _build()
"""Name → message class."""
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "RepositoryIndex")
"""The service's methods, each from its Request to its Response."""
