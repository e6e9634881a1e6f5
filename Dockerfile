# The server alone: no torch, no compiler, no pip. Two stages from one base, so that the environment made in the
# first finds its interpreter in the second.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv --without-pip /opt/pushforward
# The locked dependencies come before the source: a change of the source leaves this layer as it is.
COPY pyproject.toml constraints.txt ./
RUN python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*p['dependencies'], *p['optional-dependencies']['cpu'], sep='\n')" > requirements.txt \
    && python3 -m pip --python /opt/pushforward/bin/python install --no-compile \
        --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE ./
COPY pushforward pushforward
COPY service service
COPY models models
# The shipped flows become the image's repository. What the server never imports goes: tests, NumPy's Fortran and
# build tools, ONNX Runtime's training-side tools. Bytecode stays, compiled once: a read-only container could not keep
# its own, and would compile everything at each start.
RUN python3 -m pip --python /opt/pushforward/bin/python install --no-compile --no-deps . \
    && cd /opt/pushforward/lib/python3*/site-packages \
    && mv models/zoo /repository \
    && rm -rf numpy/f2py numpy/distutils numpy/*/tests numpy/tests numpy/_core/include numpy/_core/lib numpy/random/lib \
        onnxruntime/tools onnxruntime/transformers onnxruntime/quantization onnxruntime/datasets onnxruntime/backend \
    && find . -name '*.pyi' -delete && find /repository -name '*.py' -delete \
    && /opt/pushforward/bin/python -m compileall -q --invalidation-mode unchecked-hash . \
    && chmod -R a+rX /opt/pushforward /repository

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="pushforward" \
      org.opencontainers.image.description="A REST service for normalizing flows: densities, samples and interpolations over HTTP." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT"
COPY --from=builder /opt/pushforward /opt/pushforward
COPY --from=builder /repository /repository
# Official Linux builds of ONNX Runtime report to their maker, from 1.29 on, unless they are told not to.
ENV PATH=/opt/pushforward/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PUSHFORWARD_HOST=0.0.0.0 \
    PUSHFORWARD_PORT=8000 \
    PUSHFORWARD_REPOSITORY=/repository \
    PUSHFORWARD_DEFAULT_FLOW=two-moons
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-IS", "-c", "import os, ssl, urllib.request as u; e = os.environ; s = 'https' if e.get('PUSHFORWARD_TLS_CERTIFICATE') else 'http'; u.urlopen(s + '://127.0.0.1:' + e['PUSHFORWARD_PORT'] + '/health/live', timeout=2, context=ssl._create_unverified_context())"]
ENTRYPOINT ["pushforward"]
CMD ["serve"]
