# bcd-prep for GPU nodes, and for nodes without one (docs/containers.md):
#
#   docker build -f docker/prep.Dockerfile -t bcd-prep .
#   docker run --rm --gpus all -v IN:/data/in:ro -v OUT:/data/out bcd-prep bcd-prep --gpu
#
# BASE  any Debian-like image with Python 3.11-3.13 and its venv module; pin it by digest for a build to keep.
# LOCK  gpu-cu13 (driver 580 or newer), gpu-cu12, or prep (no GPU libraries; less than half the size).
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ARG LOCK=gpu-cu13
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
ARG UID=1000
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="bcd-prep" \
      org.opencontainers.image.description="Mammography DICOM to model-ready, verified datasets, on GPUs or CPUs" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A volume that is new takes over the owner of the folder it covers; group 0 is for hosts that choose the uid.
RUN useradd --uid "${UID}" --gid 0 --no-create-home --home-dir /tmp bcd \
    && install --directory --owner="${UID}" --group=0 --mode=0775 /data/in /data/out
COPY --from=build /opt/bcd /opt/bcd
# All that is ever written besides /data/out goes to /tmp: the root file system may be read-only.
ENV PATH=/opt/bcd/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp LOGNAME=bcd TMPDIR=/tmp XDG_CACHE_HOME=/tmp/cache \
    NUMBA_CACHE_DIR=/tmp/cache/numba MPLCONFIGDIR=/tmp/cache/matplotlib \
    CUPY_CACHE_DIR=/tmp/cache/cupy CUDA_CACHE_PATH=/tmp/cache/cuda \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    BCD_PREP_INPUT=/data/in BCD_PREP_OUT=/data/out
WORKDIR /tmp
USER ${UID}:0
VOLUME ["/data/in", "/data/out"]
# As PID 1 too, bcd-prep answers SIGTERM by exit 130; the same command then goes on from the last shard.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5m --timeout=60s --start-period=60s --retries=3 CMD ["bcd-prep", "doctor"]
CMD ["bcd-prep", "--help"]
