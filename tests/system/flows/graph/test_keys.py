"""Keys: what makes a step run again, and how it is explained."""

import json


def test_a_key_does_not_depend_on_folders_environment_time_zone_or_hash_seed(start, tmp_path):
    keys = set()
    for number, home in enumerate((tmp_path / "a", tmp_path / "another place")):
        process = start(
            home, "key", HOME=str(home), TZ=["UTC", "Asia/Tokyo"][number], PYTHONHASHSEED=str(number),
            LANG=["C", "de_DE.UTF-8"][number], SOME_SECRET=f"s{number}", TUNEGATE_HOME=str(home),
        )  # fmt: skip
        keys.add(json.loads(process.communicate()[0])["key"])
    assert len(keys) == 1
