# One image for the cluster's parts and the jobs. `make setup` brings Java, the locked packages and the locked jars.
FROM python:3.11-slim-bookworm
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends make procps && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/sise
COPY . .
RUN make setup
ENTRYPOINT ["/opt/sise/spark-submit.sh"]
CMD ["--help"]
