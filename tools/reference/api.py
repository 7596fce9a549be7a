"""The reference of the gRPC API, made from the contract's own descriptors and comments: a page for each file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import grpc_tools
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

from tools.reference.markdown import Pages, anchored, code, page, prose, table

PROTOS: Final = Path(__file__).parents[2] / "protos"
_PACKAGE: Final = ".meshgate.v1."
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6  # the numbers of these in FileDescriptorProto, which paths of comments begin with
_HEAD: Final = """\
The contract is the files in [protos/meshgate/v1](../../protos/meshgate/v1); stubs are generated from them in any
language. A client calls these services at the gateway, with TLS and a bearer token in the header `authorization`.
[Error reasons](reasons.md) are the same for all methods."""


class Source(NamedTuple):
    """A file of the contract, with its comments by their paths."""

    file: FileDescriptorProto
    comments: Mapping[tuple[int, ...], str]

    def said(self, *path: int) -> str:
        """The comment before a declaration, else the one behind it."""
        return self.comments.get(path, "")


def pages() -> Pages:
    """The page of all methods, and a page for each file."""
    sources = _sources()
    where = {name: _file(source) for source in sources for name in _names(source.file)}
    index = table(["method", "kind", ""], (row for source in sources for row in _methods(source)))
    made = {_file(source): _page(source, where) for source in sources}
    return {"api.md": page("API", _HEAD, index), **made}


def _sources() -> list[Source]:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "set"
        standard = Path(grpc_tools.__file__).parent / "_proto"
        files = [path.relative_to(PROTOS).as_posix() for path in sorted(PROTOS.glob("meshgate/v1/*.proto"))]
        flags = [f"-I{PROTOS}", f"-I{standard}", "--include_source_info", f"--descriptor_set_out={made}"]
        if protoc.main(["protoc", *flags, *files]):
            raise RuntimeError("protoc does not accept the contract")
        found = FileDescriptorSet.FromString(made.read_bytes())
    return [Source(file, dict(_comments(file))) for file in found.file]


def _comments(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    for location in file.source_code_info.location:
        yield tuple(location.path), location.leading_comments or location.trailing_comments


def _file(source: Source) -> str:
    return f"api-{Path(source.file.name).stem}.md"


def _names(file: FileDescriptorProto) -> list[str]:
    messages, enums = [each.name for each in file.message_type], [each.name for each in file.enum_type]
    return [f"{_PACKAGE}{name}" for name in (*messages, *enums)]


def _methods(source: Source) -> Iterator[list[str]]:
    for number, service in enumerate(source.file.service):
        for index, method in enumerate(service.method):
            link = f"[{service.name}.{method.name}]({_file(source)}#{method.name.lower()})"
            yield [link, _streaming(method), _first(source.said(_SERVICE, number, 2, index))]


def _first(text: str) -> str:
    """The first sentence."""
    return f"{prose(text).split('. ')[0].rstrip('.')}." if text.strip() else ""


def _streaming(method: MethodDescriptorProto) -> str:
    kinds = {
        (False, False): "unary",
        (False, True): "server streaming",
        (True, False): "client streaming",
        (True, True): "bidirectional streaming",
    }
    return kinds[method.client_streaming, method.server_streaming]


def _page(source: Source, where: Mapping[str, str]) -> str:
    file = source.file
    services = [part for each in enumerate(file.service) for part in _service(source, *each, where)]
    messages = [part for each in enumerate(file.message_type) for part in _message(source, *each, where)]
    enums = [part for each in enumerate(file.enum_type) for part in _enum(source, *each)]
    link = f"[protos/{file.name}](../../protos/{file.name})"
    return page(f"API: {Path(file.name).stem}", link, *services, *messages, *enums)


def _service(source: Source, number: int, service: ServiceDescriptorProto, where: Mapping[str, str]) -> Iterator[str]:
    yield f"## {service.name}"
    yield prose(source.said(_SERVICE, number))
    for index, method in enumerate(service.method):
        yield f"### {method.name}"
        taken, given = (_type(name, where) for name in (method.input_type, method.output_type))
        yield f"{_streaming(method)} · takes {taken} · returns {given}"
        yield _paragraphs(source.said(_SERVICE, number, 2, index))


def _paragraphs(text: str) -> str:
    """A comment with its paragraphs."""
    lines = "\n".join(line.strip() for line in text.splitlines())
    return "\n\n".join(prose(part).replace("\\|", "|") for part in lines.split("\n\n"))


def _message(source: Source, number: int, message: DescriptorProto, where: Mapping[str, str]) -> Iterator[str]:
    yield f"## {message.name}"
    yield _paragraphs(source.said(_MESSAGE, number))
    if message.field:
        fields = enumerate(message.field)
        rows = (_field(source, message, field, (_MESSAGE, number, 2, index), where) for index, field in fields)
        yield table(["field", "type", "meaning"], rows)


def _field(
    source: Source,
    message: DescriptorProto,
    field: FieldDescriptorProto,
    path: Sequence[int],
    where: Mapping[str, str],
) -> list[str]:
    said = prose(source.said(*path))
    if field.HasField("oneof_index") and not field.proto3_optional:
        said = f"One of {code(message.oneof_decl[field.oneof_index].name)}. {said}"
    return [anchored(f"{message.name}.{field.name}", field.name), _field_type(message, field, where), said]


def _field_type(message: DescriptorProto, field: FieldDescriptorProto, where: Mapping[str, str]) -> str:
    inner = {f"{_PACKAGE}{message.name}.{each.name}": each for each in message.nested_type if each.options.map_entry}
    if field.type_name in inner:
        key, value = inner[field.type_name].field
        return f"map of {_scalar(key, where)} to {_scalar(value, where)}"
    repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    prefix = "repeated " if repeated else "optional " if field.proto3_optional else ""
    return f"{prefix}{_scalar(field, where)}"


def _scalar(field: FieldDescriptorProto, where: Mapping[str, str]) -> str:
    if field.type_name:
        return _type(field.type_name, where)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _type(name: str, where: Mapping[str, str]) -> str:
    short = name.removeprefix(_PACKAGE)
    return f"[{short}]({where[name]}#{short.lower()})" if name in where else code(name.lstrip("."))


def _enum(source: Source, number: int, enum: EnumDescriptorProto) -> Iterator[str]:
    yield f"## {enum.name}"
    yield _paragraphs(source.said(_ENUM, number))
    rows = (
        [anchored(each.name), str(each.number), prose(source.said(_ENUM, number, 2, index))]
        for index, each in enumerate(enum.value)
    )
    yield table(["value", "number", "meaning"], rows)
