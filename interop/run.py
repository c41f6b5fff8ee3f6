#!/usr/bin/env python3
"""Interoperability: real clients against a real broker.

    python3 interop/run.py --whimbrel target/release/whimbrel   # starts and stops Whimbrel
    python3 interop/run.py --mosquitto                          # starts and stops mosquitto
    python3 interop/run.py --host HOST --port PORT --ws-port WS_PORT

Clients: mosquitto_pub, _sub and _rr; paho-mqtt and aiomqtt; MQTT.js; and `whimbrel pub` and
`whimbrel sub`, which run against mosquitto as well. With `--whimbrel` also TLS and client
certificates (openssl besides), SCRAM (the library scramp) and OAuth (oidc-provider). What is
missing is installed below `target`.
One line per failure, then `interop: N passed, N failed, N skipped`; exit code 1 on failure.
"""

import argparse
import contextlib
import sys
import threading

import environment


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--whimbrel", metavar="BINARY", help="start this binary as the broker")
    which.add_argument("--mosquitto", action="store_true", help="start Debian's mosquitto")
    which.add_argument("--host", help="test the broker that runs there")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--ws-port", type=int, help="WebSocket port; no such tests without")
    parser.add_argument("--ws-path", default="/mqtt")
    parser.add_argument("--unix", help="path of the broker's Unix socket")
    parser.add_argument("--tools", metavar="BINARY", help="whimbrel, for `pub` and `sub` alone")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--verbose", action="store_true", help="a line per case, and tracebacks")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    environment.enter_venv()
    without_node = environment.prepare_node()

    # These need what the virtual environment holds.
    import brokers
    import commands
    import library_cases
    import oauth_cases
    import scram_cases
    import secure
    import tls_cases
    from harness import Report
    from peers import mqttjs_peer

    report = Report(options.verbose)
    # paho and aiomqtt raise in their own threads when a connection is cut, which cases do.
    threading.excepthook = lambda _arguments: None
    if options.whimbrel:
        start = brokers.whimbrel(options.whimbrel)
    elif options.mosquitto:
        start = brokers.mosquitto()
    else:
        start = contextlib.nullcontext(
            brokers.running(
                options.host, options.port, options.ws_port, options.ws_path, options.unix
            )
        )
    whimbrel = options.whimbrel or options.tools
    try:
        with start as broker, contextlib.ExitStack() as others:
            cases = library_cases.cases(broker, others, report, without_node)
            cases += commands.mosquitto_cases(broker, report)
            cases += commands.whimbrel_cases(whimbrel, broker, others, report)
            if options.whimbrel:
                guarded = others.enter_context(secure.whimbrel(options.whimbrel))
                cases += tls_cases.cases(guarded, report, without_node)
                if not without_node:
                    cases += scram_cases.cases(guarded)
                    cases += oauth_cases.cases(
                        others.enter_context(oauth_cases.place(options.whimbrel))
                    )
            cases = [case for case in cases if options.only in case.name]
            report.run(report.without_known_failures(cases, broker.known_to_fail))
    except brokers.BrokerFailed as error:
        report.fail("broker", str(error))
    finally:
        mqttjs_peer.stop()
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
