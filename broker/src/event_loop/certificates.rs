//! Clients whose certificates are no longer good enough, after files have changed.

use whimbrel_broker_core::ConnId;

use super::EventLoop;

/// Connections looked at in a tick, and how many of them are checked: that takes signatures.
const LOOKS: u32 = 1024;
const CHECKS: u32 = 4;

impl EventLoop {
    /// Goes on checking.
    pub(super) fn check_certificates(&mut self) {
        let Some(first) = self.recheck else { return };
        let mut checks = 0;
        for slot in first..first.saturating_add(LOOKS) {
            if slot >= self.connections.slots() {
                self.recheck = None;
                return;
            }
            self.recheck = Some(slot + 1);
            checks += u32::from(self.check_certificate(ConnId(slot)));
            if checks == CHECKS {
                return;
            }
        }
    }

    /// Closes the connection if its client may no longer stay. True if that was to be found out.
    pub(super) fn check_certificate(&mut self, id: ConnId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let Some(layer) = &mut connection.layer else { return false };
        match layer.check() {
            Ok(checked) => checked,
            Err(fault) => {
                let peer = self.connections.peer_address(id);
                self.log.cut_off(peer, &fault.to_string());
                self.close(id, true);
                true
            }
        }
    }
}
