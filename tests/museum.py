"A server on loopback that behaves as servers do: late, half, moved, busy, or not at all."
import io
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def picture(mode="RGB", size=(40, 30), format="JPEG", seed=None):
    "A file of noise."
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), "uint8")
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, format=format)
    return content.getvalue()


@contextmanager
def museum(answers, delay=0, keep_alive=False):
    """Context with a server's address and the list of paths that it was asked for.

    An answer is (status, headers, body), or a function that gives one for the path and the number of times it was
    asked; a body may come in pieces."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if keep_alive else "HTTP/1.0"

        def do_GET(self):
            asked.append(self.path)
            time.sleep(delay)
            answer = answers(self.path, asked.count(self.path)) if callable(answers) else answers[self.path]
            if answer is None: return time.sleep(3)
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items(): self.send_header(name, value)
            if "Content-Length" not in headers and isinstance(body, bytes):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                for piece in [body] if isinstance(body, bytes) else body: self.wfile.write(piece)
            except ConnectionError: pass # the client has had enough

        def log_message(self, *_): pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, args=[0.02], daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", asked
        http.shutdown()
