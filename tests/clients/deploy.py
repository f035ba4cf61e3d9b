"""The files of tools/deploy are well-formed, and speak of routes, flags and metrics that there are.

    deploy.py ROOT PROGRAM
"""
import json, pathlib, re, subprocess, sys

import kubernetes_validate, yaml

root, program = pathlib.Path(sys.argv[1]), sys.argv[2]
deploy = root / "tools" / "deploy"
flags = set(re.findall(r"--[a-z][a-z-]+", subprocess.run([program, "serve", "--help"], check=True, capture_output=True, text=True).stdout))
sources = "".join(p.read_text() for p in (root / "tools" / "src" / "serve").glob("*.rs"))
known = set(re.findall(r"\b((?:handmill|process)_[a-z_]+)\b", sources))

kinds = []
for document in yaml.safe_load_all((deploy / "kubernetes" / "handmill.yaml").read_text()):
    kubernetes_validate.validate(document, "1.30", strict=True)
    kinds.append(document["kind"])
    if document["kind"] == "Deployment":
        pod = document["spec"]["template"]["spec"]
        container = pod["containers"][0]
        used = {a for a in container["args"] if a.startswith("--")}
        assert used <= flags, f"unknown flags {used - flags}"
        assert container["securityContext"]["readOnlyRootFilesystem"] and pod["securityContext"]["runAsNonRoot"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert f'"{container[probe]["httpGet"]["path"]}"' in sources, probe
assert {"Deployment", "Service", "HorizontalPodAutoscaler"} <= set(kinds), kinds

compose = yaml.safe_load((deploy / "compose.yaml").read_text())
assert compose["services"]["handmill"]["read_only"] is True and set(compose["secrets"]) == {"handmill_keys"}
scrape = yaml.safe_load((deploy / "prometheus" / "scrape.yaml").read_text())
assert scrape["scrape_configs"][0]["metrics_path"] == "/metrics"
expressions = [r["expr"] for g in yaml.safe_load((deploy / "prometheus" / "alerts.yaml").read_text())["groups"] for r in g["rules"]]
dashboard = json.loads((deploy / "grafana" / "dashboard.json").read_text())
expressions += [t["expr"] for p in dashboard["panels"] for t in p["targets"]]
for expression in expressions:
    assert expression.count("(") == expression.count(")"), expression
    for name in re.findall(r"\b((?:handmill|process)_[a-z_]+)\b", expression):
        assert re.sub(r"_(bucket|sum|count)$", "", name) in known, f"{name} is no metric"
docker = (deploy / "Dockerfile").read_text()
assert re.search(r"^USER 10001$", docker, re.M) and "HEALTHCHECK" in docker and 'ENTRYPOINT ["/usr/local/bin/handmill"]' in docker
print(f"{len(kinds)} Kubernetes objects, {len(expressions)} expressions, compose and image are well-formed")
