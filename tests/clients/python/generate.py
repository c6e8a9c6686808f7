"""Generates Python modules from the protos: generate.py PROTO_DIRECTORY OUTPUT_DIRECTORY."""

import pathlib
import sys

import grpc_tools
from grpc_tools import protoc


def generate(protos: pathlib.Path, output: pathlib.Path) -> None:
    """Writes modules for every package of ours, and for google.longrunning.

    google.api and google.rpc come from googleapis-common-protos; its google.longrunning is registered under another
    file name, which generated code does not find, so that one is generated too and made to come first.
    """
    third_party = protos / "third_party"
    builtin = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(p.relative_to(protos)) for p in (protos / "pavior").rglob("*.proto"))
    files.append("google/longrunning/operations.proto")
    arguments = ["protoc", f"-I{protos}", f"-I{third_party}", f"-I{builtin}"]
    arguments += [f"--python_out={output}", f"--grpc_python_out={output}", *files]
    if protoc.main(arguments) != 0:
        sys.exit("the protos do not compile")
    (output / "google" / "longrunning" / "__init__.py").touch()


if __name__ == "__main__":
    generate(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve())
