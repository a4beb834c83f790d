"""`zipstage serve`: a classifier file behind the Open Inference Protocol, for trying things out."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from jobs.commands.options import Verbose, command, note

serve_app = command("serve", "zipstage serve signs.onnx --port 8000 --name signs")


@serve_app.default
def serve_command(
    file: Annotated[str, Parameter(help="the classifier: .onnx, or .pt2 of torch.export.save, which is trusted")],
    *,
    host: Annotated[str, Parameter(help="address to listen on; whoever reaches it may ask")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="its port; 0 takes a free one")] = 8000,
    name: Annotated[str, Parameter(help="the model's name in URLs")] = "classifier",
    verbose: Verbose = False,
) -> int:
    """Serve a classifier by the Open Inference Protocol V2 over HTTP, until Ctrl-C."""
    from jobs.serve import serve

    def ready(url: str) -> None:
        note(f"{file} answers at {url}/v2/models/{name} (Ctrl-C ends it)")

    serve(file, host, port, name, ready)
    return 0
