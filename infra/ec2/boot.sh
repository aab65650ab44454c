#!/usr/bin/env bash
# What an instance of a GPU pool does after it has booted: run the replica that its tags name, and
# end with it. The launch template's user data writes LORAPLEX_REDIS_URL and what else all replicas
# share to /etc/loraplex.env, and runs this. Its tags must be in the metadata
# (InstanceMetadataTags=enabled). A spot instance that is about to be taken leaves in time; what it
# can't finish goes on at another replica.
set -uo pipefail
imds=${IMDS:-http://169.254.169.254}
shared=${LORAPLEX_ENV_FILE:-/etc/loraplex.env}
halt=${LORAPLEX_HALT:-shutdown -h now} # the template ends what is shut down
patience_s=${LORAPLEX_PATIENCE_S:-60}
leave_s=100                            # of the two minutes that a spot instance is given

session=$(curl -sf --retry 5 --retry-connrefused -X PUT "$imds/latest/api/token" \
  -H 'x-aws-ec2-metadata-token-ttl-seconds: 21600')
meta() { curl -sf -H "x-aws-ec2-metadata-token: $session" "$imds/latest/meta-data/$1"; }
tag() { meta "tags/instance/loraplex:$1"; }

settings() { # NAME=VALUE a line, of the JSON that the tags settings-0, -1 … hold
  local number=0 text='' part
  while part=$(tag "settings-$number"); do
    text+=$part
    number=$((number + 1))
  done
  python3 -c 'import base64, json, sys
for name, value in json.loads(base64.urlsafe_b64decode(sys.argv[1])).items():
    print(f"{name}={value}")' "$text"
}

# One that waits (its tag: warm) is given its replica just after it was started, or stops again.
waits() { ! tag replica >/dev/null && tag warm >/dev/null; }
for _ in $(seq "$patience_s"); do
  waits || break
  sleep 1
done
if waits; then
  echo "Nobody wants it yet."
  $halt
  exit
fi

environment=$(mktemp)
{ replica=$(tag replica) && lane=$(tag lane) && cat "$shared" && settings; } >"$environment" ||
  { echo "Its tags, or $shared, can't be read."; $halt; exit 1; }
run=${LORAPLEX_RUN:-docker run --rm --name loraplex --gpus all --network host --read-only \
  --tmpfs /tmp:exec --cap-drop ALL --security-opt no-new-privileges:true --env-file $environment \
  --volume /var/lib/loraplex:/var/lib/loraplex --volume /var/lib/loraplex-models:/models \
  loraplex/gpu_worker python -m gpu_worker}

while IFS= read -r line; do # as docker reads the file: nothing is quoted
  [ -z "$line" ] || export "${line?}"
done <"$environment"
$run --replica "$replica" --lane "$lane" &
worker=$!

leave() {
  kill -TERM $worker 2>/dev/null
  (sleep $leave_s && kill -KILL $worker) 2>/dev/null &
}
trap leave TERM
(until meta spot/instance-action >/dev/null; do sleep 5; done; echo "Spot: it is taken."; kill -TERM $$) &
watcher=$!
until wait $worker; [ $? -lt 128 ] || ! kill -0 $worker 2>/dev/null; do :; done
kill $watcher 2>/dev/null
rm -f "$environment"
$halt
