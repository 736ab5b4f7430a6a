
import json, pytest
pytestmark = pytest.mark.server
def show(s):
    for r in s.ask("/flow_runs/filter", {}):
        print(r["name"], r["state_name"], r["state"]["message"], r["parameters"])
        g = s.ask(f"/flow_runs/{r['id']}/graph-v2")
        names = {i: n["label"] for i, n in g["nodes"]}
        for i, n in g["nodes"]:
            print("   ", n["kind"], n["label"], n["state_type"], "<-", sorted({names.get(p["id"], p["id"]) for p in n["parents"]}))
def test_small(workplace, prefect_server):
    done = workplace.run("run","small","--json", PREFECT_API_URL=prefect_server.url)
    print(done.stdout, done.stderr[-600:])
    show(prefect_server)
    done = workplace.run("run","small","--json", "--again", PREFECT_API_URL=prefect_server.url)
    print(done.stdout, done.stderr[-1600:])
    assert 0
