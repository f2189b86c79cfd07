# The server and its page:  docker build -f scripts/deploy/serve.Dockerfile -t eczema-serve .
# compose.yaml says how to run it. The model is not part of the image: it is mounted read-only at /models/eczema.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
# uv takes versions and hashes from the lock without installing what the tests need. Bytecode is compiled here: the
# running container cannot write it, and would spend half of its start compiling it again (measured 2026-11-27: 12 s of
# processor time until a model is loaded, 7 s with bytecode).
RUN pip install --no-cache-dir uv==0.13.9 && uv venv /venv
COPY requirements-base.txt requirements-serve.txt requirements.lock ./
RUN uv pip install --no-cache --compile-bytecode --python /venv/bin/python \
    -r requirements-base.txt -r requirements-serve.txt -c requirements.lock

FROM python:3.11-slim-bookworm
COPY --from=build /venv /venv
COPY eczema_tf /app/eczema_tf
COPY configs /app/configs
WORKDIR /app
# libraries keep their files in /tmp, the only place that is not read-only
ENV PATH=/venv/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/tmp MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65534:65534
EXPOSE 8501
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/readyz', timeout=4)"]
# The server listens on all addresses of the container. compose.yaml decides what the host publishes: loopback only.
ENTRYPOINT ["python", "-m", "eczema_tf.serve", "--model", "/models/eczema", "--host", "0.0.0.0"]
