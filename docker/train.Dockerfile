# bcd-train, with TensorFlow or JAX on GPUs (docs/containers.md):
#
#   docker build -f docker/train.Dockerfile -t bcd-train .
#   docker run --rm --gpus all --shm-size 2g -v DATASET:/data/dataset:ro -v RUN:/data/run bcd-train bcd-train fit
#
# BASE  any Debian-like image with Python 3.11-3.13 and its venv module; pin it by digest for a build to keep.
# LOCK  train-gpu (TensorFlow, CUDA 12) or train-jax-gpu (JAX, CUDA 13: driver 580 or newer);
# KERAS_BACKEND goes with it: tensorflow or jax. Both locks can export to ONNX.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ARG LOCK=train-gpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY requirements-build.lock requirements-${LOCK}.lock ./
# pip lives beside the environment, not in it. Another package index: --secret id=pip.conf,src=…
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/tools \
    && python3 -m venv --without-pip /opt/bcd \
    && /opt/tools/bin/pip install --require-hashes -r requirements-build.lock \
    && /opt/tools/bin/pip --python /opt/bcd/bin/python install --require-hashes -r "requirements-${LOCK}.lock"
COPY pyproject.toml README.md LICENSE ./
COPY preprocess preprocess
COPY dali_pipelines dali_pipelines
COPY trainer trainer
COPY bench bench
RUN /opt/tools/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
    && /opt/tools/bin/pip --python /opt/bcd/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${BASE}
ARG KERAS_BACKEND=tensorflow
ARG UID=1000
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="bcd-train" \
      org.opencontainers.image.description="Keras classifiers of mammograms from bcd-prep's datasets" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A volume that is new takes over the owner of the folder it covers; group 0 is for hosts that choose the uid.
RUN useradd --uid "${UID}" --gid 0 --no-create-home --home-dir /tmp bcd \
    && install --directory --owner="${UID}" --group=0 --mode=0775 /data/dataset /data/run
COPY --from=build /opt/bcd /opt/bcd
# All that is ever written besides /data/run goes to /tmp: the root file system may be read-only.
ENV PATH=/opt/bcd/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp LOGNAME=bcd TMPDIR=/tmp XDG_CACHE_HOME=/tmp/cache \
    NUMBA_CACHE_DIR=/tmp/cache/numba MPLCONFIGDIR=/tmp/cache/matplotlib \
    KERAS_HOME=/tmp/cache/keras CUDA_CACHE_PATH=/tmp/cache/cuda \
    KERAS_BACKEND=${KERAS_BACKEND} NO_ALBUMENTATIONS_UPDATE=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    BCD_TRAIN_DATASET=/data/dataset BCD_TRAIN_OUT=/data/run BCD_TRAIN_BACKEND=${KERAS_BACKEND}
WORKDIR /tmp
USER ${UID}:0
VOLUME ["/data/dataset", "/data/run"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5m --timeout=60s --start-period=60s --retries=3 CMD ["bcd-prep", "doctor", "--train"]
CMD ["bcd-train", "--help"]
