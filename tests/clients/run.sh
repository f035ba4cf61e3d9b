#!/usr/bin/env bash
# Real clients against a real server with a real model: `run.sh PROGRAM FOLDER`. FOLDER keeps the clients (a virtual
# environment) between runs; models come from HANDMILL_HOME or are obtained.
set -euo pipefail
program=$1 folder=$2 here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
python=$folder/venv/bin/python
if ! "$python" -c 'import ollama, openai, langchain_ollama, langchain_openai, yaml, kubernetes_validate, selenium' 2>/dev/null; then
    python3 -m venv "$folder/venv"
    "$python" -m pip install --quiet ollama openai langchain-ollama langchain-openai pyyaml kubernetes-validate selenium
fi
"$python" "$here/deploy.py" "$here/../.." "$program"
work=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT
# start OPTION...: a server that is ready, at $base.
start() {
    "$program" serve smollm2 --port 0 "$@" 2>"$work/log" &
    server=$!
    for _ in $(seq 200); do
        if grep -q ' ready$' "$work/log"; then break; fi
        sleep 0.1
    done
    base=$(sed -n 's/.*listening on //p' "$work/log")
}
# Running answers finish, and the program ends well.
stop() {
    kill -TERM "$server"
    wait "$server"
    server=
}

# A store of its own, so that nothing of the user's changes.
path=$("$program" pull smollm2 --print-path)
export HANDMILL_HOME=$work/store
printf 'FROM %s\n' "$path" > "$work/plain"
printf 'FROM smollm2\nTEMPLATE """{{ if .Tools }}Tools: {{ .Tools }}\n{{ end }}{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}{{ range .ToolCalls }}<tool_call>{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}</tool_call>{{ end }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"""\n' > "$work/tools"
"$program" create smollm2 -f "$work/plain" 2>/dev/null
"$program" create smollm2-tools -f "$work/tools" 2>/dev/null

start --audit "$work/audit.jsonl"
if ! "$python" "$here/check.py" "$base" smollm2:latest smollm2-tools:latest; then
    tail -n 20 "$work/log"
    exit 1
fi
if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
    "$python" "$here/page.py" "$base" smollm2:latest
else
    echo "skipped: the page at /ui needs chromium and chromedriver"
    [ "${HANDMILL_REQUIRE_MODELS:-}" != 1 ] || exit 1
fi
# Long prompts beside running answers. SOAK_SECONDS=600 makes the soak below a long one.
"$python" "$here/load.py" "$base" smollm2:latest fair
stop
"$python" - "$work/audit.jsonl" <<'CHECK'
import hashlib, json, sys
last, n = "0" * 64, 0
for line in open(sys.argv[1]):
    line = line.rstrip("\n")
    assert json.loads(line)["previous"] == last, "the audit log's chain is broken"
    last, n = hashlib.sha256(line.encode()).hexdigest(), n + 1
print(f"the audit log has {n} lines, chained")
CHECK
# Everything at once, with a cache that is soon full.
start --parallel 8 --kv-tokens 4096 --ctx 2048
"$python" "$here/load.py" "$base" smollm2:latest soak "${SOAK_SECONDS:-20}"
stop
"$python" "$here/tls.py" "$program" "$path"
"$python" "$here/registry.py" "$program" "$path"
