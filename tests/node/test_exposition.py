from clustersession.node.exposition import exposition


def test_counters_and_gauges_are_written_as_prometheus_reads_them() -> None:
    """Each family has its type and one line a sample; names are made valid, labels are kept."""
    samples = {"loads_total": 3, 'calls_total{peer="b"}': 2, 'calls_total{peer="a"}': 1, "store.bytes": 1.5}
    assert exposition(samples) == (
        "# TYPE clustersession_calls_total counter\n"
        'clustersession_calls_total{peer="a"} 1\n'
        'clustersession_calls_total{peer="b"} 2\n'
        "# TYPE clustersession_loads_total counter\n"
        "clustersession_loads_total 3\n"
        "# TYPE clustersession_store_bytes gauge\n"
        "clustersession_store_bytes 1.5\n"
    )
