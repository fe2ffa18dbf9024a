"""A libtorrent client in a process of its own: python libtorrent_client.py TORRENT FOLDER ADDRESS. SIGINT stops it."""

import signal
import sys

import libtorrent

SETTINGS = {
    "alert_mask": libtorrent.alert.category_t.tracker_notification,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "allow_multiple_connections_per_ip": True,
}


def replies(session, seconds):
    """The tracker's replies until none comes for some seconds."""
    while session.wait_for_alert(1000 * seconds):
        yield from (alert for alert in session.pop_alerts() if isinstance(alert, libtorrent.tracker_reply_alert))


torrent, folder, address = sys.argv[1:]
session = libtorrent.session({**SETTINGS, "listen_interfaces": f"{address}:0"})
parameters = libtorrent.add_torrent_params()
parameters.ti = libtorrent.torrent_info(torrent)
parameters.save_path = folder
session.add_torrent(parameters)

signal.signal(signal.SIGINT, lambda *_: None)
signal.pause()
session.pop_alerts()
session.pause()  # now it says goodbye to the tracker
next(replies(session, 5), None)
