#!/bin/sh
# The image's Python packages, CycloneDX: docker run --rm IMAGE cat /opt/loraplex/sbom.json
# The system's packages too, where BuildKit may pull its scanner: docker buildx build --sbom=true
set -e
python -m venv /tmp/sbom
/tmp/sbom/bin/pip install --no-cache-dir --quiet cyclonedx-bom==7.5.0
/tmp/sbom/bin/cyclonedx-py environment /opt/loraplex/bin/python --output-file /opt/loraplex/sbom.json
rm -r /tmp/sbom
