"""How often the gate's judge is called: a server on loopback counts the questions of the real step."""

import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import EvalSet, Predictions
from schemas.checks import JudgeSpec
from schemas.evaluation import EndpointSpec
from tasks.assess.llm_judge import judge_answers


def calls_for_identical_answers(n: int) -> int:
    """Questions to a judge about `n` pairs of answers, each pair equal."""
    ids = [f"t{number:04}" for number in range(n)]
    calls: list[str] = []

    class Judge(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            body = orjson.dumps({"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}]})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with tempfile.TemporaryDirectory() as folder, ThreadingHTTPServer(("127.0.0.1", 0), Judge) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = Path(folder)
        texts = {"item_id": ids, "subject": ["s"] * n, "body": [f"{name}?" for name in ids], "text": ["answer"] * n}
        for file in ("items.parquet", "predictions.parquet"):
            pq.write_table(pa.table(texts), root / file)
        answers = Predictions(root=root, n_items=n, n_new_tokens=n)
        url = f"http://127.0.0.1:{server.server_port}/v1"
        judge_answers(
            root,
            items=EvalSet(root=root, n_items=n, n_available=n),
            candidate=answers,
            reference=answers,
            spec=JudgeSpec(endpoint=EndpointSpec(base_url=url, model="judge"), n_items=n),
            root=root,
            scratch=root,
        )
        server.shutdown()
    return len(calls)
