import Testing

@testable import SpegelCommands

/// What containerd's CRI plugin says of its own settings.
@Suite struct ContainerdProbeTests {
    @Test func settingsThatTheRuntimeDoesNotTellAreUnknown() {
        // containerd 2.x: how images are pulled is another plugin's business.
        let new = ContainerdProbe.runtimeSettings(
            #"{"containerd":{"defaultRuntimeName":"runc"},"cni":{"binDir":"/opt/cni/bin"}}"#)
        #expect(new.configPath == nil && new.discardsLayers == nil)
        let old = ContainerdProbe.runtimeSettings(
            #"{"containerd":{"discardUnpackedLayers":true},"registry":{"configPath":"/etc/containerd/certs.d"}}"#)
        #expect(old.configPath == "/etc/containerd/certs.d" && old.discardsLayers == true)
        #expect(ContainerdProbe.runtimeSettings(#"{"registry":{"configPath":""}}"#).configPath == "")
        #expect(ContainerdProbe.runtimeSettings("no JSON").configPath == nil)
        #expect(ContainerdProbe.runtimeSettings(nil).configPath == nil)
    }
}
