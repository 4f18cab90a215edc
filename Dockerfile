# One image for every process of the system; the command says which: migrate, api, worker, beat or host.
#
#     docker build --build-arg BRAIN_COMMIT="$(git rev-parse HEAD)" -t brain-clusters .
#
# Started by hand, give it an init (docker run --init): agents' own children are reaped by it.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build
# For those who fetch packages from elsewhere: docker build --build-arg PIP_INDEX_URL=... Unset unless given.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The environment that is shipped holds no installer: this other one installs into it.
RUN python -m venv /opt/install && python -m venv --without-pip /opt/brain
ENV PATH=/opt/install/bin:$PATH PIP_PYTHON=/opt/brain/bin/python
WORKDIR /src
# The libraries first, in a layer that stays until setup.cfg changes.
COPY setup.cfg .
RUN python -c "from configparser import ConfigParser; found = ConfigParser(); found.read('setup.cfg'); \
print(found['options']['install_requires'], found['options.extras_require']['llm'])" >/requirements.txt \
    && pip install -r /requirements.txt
# Further extras, by commas. Hosts on Kubernetes need its client, which is 140 MB: --build-arg EXTRA=kubernetes,tracing
ARG EXTRA=
RUN python -c "from configparser import ConfigParser; found = ConfigParser(); found.read('setup.cfg'); \
print(*(found['options.extras_require'].get(name, '') for name in '${EXTRA}'.split(',')))" >/requirements.txt \
    && pip install -r /requirements.txt
COPY . .
RUN pip install --no-deps --prefix /made/brain . && mkdir -p /made/home/logs /made/home/run /made/app

FROM python:${PYTHON_VERSION}-slim
# A fixed number, so that volumes keep their owner from one image to the next.
RUN echo 'brain:x:10001:10001::/var/lib/brain:/usr/sbin/nologin' >>/etc/passwd && echo 'brain:x:10001:' >>/etc/group
COPY --from=build --chown=10001:10001 /made/home /var/lib/brain
COPY --from=build --chown=10001:10001 /made/app /app
COPY --from=build /opt/brain /opt/brain
COPY --from=build /made/brain /opt/brain
COPY docker/health.py /opt/brain/health.py
# Python's own library comes uncompiled, and agents may not write there: what they import is compiled here, once. That
# halves the processor time that an agent takes to start (0.9 to 0.5 s), for 4 MB.
RUN /opt/brain/bin/python -P -c "import importlib, brain_clusters.agent.starting; \
from brain_clusters.agent.zygote import PRELOAD; list(map(importlib.import_module, PRELOAD))"
# PIP_PYTHON: what images built on this one install goes where we look for it.
ENV PATH=/opt/brain/bin:$PATH \
    PIP_PYTHON=/opt/brain/bin/python \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/brain \
    BRAIN_HOME=/var/lib/brain
# Last, since it changes with every commit.
ARG BRAIN_COMMIT=
ENV BRAIN_COMMIT=${BRAIN_COMMIT}
LABEL org.opencontainers.image.title="BRAiN Clusters" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${BRAIN_COMMIT}"
# Handlers are imported from the working directory: mount or copy yours to /app.
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["brain-clusters"]
CMD ["--help"]
