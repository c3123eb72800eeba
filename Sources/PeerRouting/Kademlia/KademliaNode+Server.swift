import Logging
import NIOCore

/// Answering other nodes.
extension KademliaNode {
    /// What to answer to a request of the authenticated peer `asker`.
    ///
    /// Addresses in `message` must have passed the address policy.
    mutating func respond(to message: KadMessage, from asker: PeerID, now: NIODeadline) -> KademliaReply {
        statistics.requestsServed += 1
        let askerKey = KadKey(hashing: asker.bytes)
        table.heard(from: askerKey, now: now)
        switch message.kind {
        case .findNode:
            guard !message.key.isEmpty else { return .reset("FIND_NODE without a key") }
            return .answer(findNode(message.key, asker: asker, askerKey: askerKey))
        case .getProviders:
            guard (1...80).contains(message.key.count) else {
                return .reset("GET_PROVIDERS for a key of \(message.key.count) bytes")
            }
            return .answer(getProviders(message.key, askerKey: askerKey, now: now))
        case .addProvider:
            guard (1...80).contains(message.key.count) else {
                return .reset("ADD_PROVIDER for a key of \(message.key.count) bytes")
            }
            return addProvider(message, from: asker, askerKey: askerKey, now: now)
        case .ping:
            return .answer(KadMessage(kind: .ping, key: message.key))
        case .putValue, .getValue:
            return .reset("values are not stored here")
        }
    }

    private func closest(to target: KadKey, excluding asker: KadKey) -> [KadContact] {
        table.nearest(to: target, limit: configuration.k, excluding: asker).map(marked)
    }

    private func marked(_ contact: KadContact) -> KadContact {
        var contact = contact
        contact.isConnected = connections[contact.key] != nil
        return contact
    }

    private func findNode(_ wanted: [UInt8], asker: PeerID, askerKey: KadKey) -> KadMessage {
        var peers = closest(to: KadKey(hashing: wanted), excluding: askerKey)
        if peers.first?.id.bytes != wanted {
            // The peer that has just this ID comes first when known, ourselves and the asker included.
            if wanted == local.bytes {
                peers.insert(ownContact, at: 0)
            } else {
                let target = KadKey(hashing: wanted)
                if let known = connections[target]?.contact ?? table[target]?.contact {
                    peers.insert(marked(known), at: 0)
                }
            }
        }
        return KadMessage(kind: .findNode, closerPeers: peers.filter { !$0.addresses.isEmpty })
    }

    private mutating func getProviders(_ key: [UInt8], askerKey: KadKey, now: NIODeadline) -> KadMessage {
        let position = KadKey(hashing: key)
        var providers: [KadContact] = []
        if schedule.contains(position), !hasLeft { providers.append(ownContact) }
        providers += usableProviders(of: position, now: now).map(marked)
        if providers.count > 1 { providers.shuffle(using: &random) }
        return KadMessage(
            kind: .getProviders, key: key, closerPeers: closest(to: position, excluding: askerKey),
            providerPeers: providers)
    }

    /// The providers in the store, without those that are gone; where there are no others, a few of those: they may be
    /// back, and the one who asks will find out.
    private func usableProviders(of position: KadKey, now: NIODeadline) -> [KadContact] {
        let present = presentProviders(of: position, now: now)
        let usable = present.filter { health.standing(of: $0.key, now: now) != .gone }
        return usable.isEmpty ? Array(present.prefix(lookups.limits.goneProviders)) : usable
    }

    /// The providers in the store that have not said goodbye.
    func presentProviders(of position: KadKey, now: NIODeadline) -> [KadContact] {
        store.providers(of: position, now: now).compactMap { contact in
            guard departed[contact.key] == nil else { return nil }
            return contact.addresses.isEmpty ? knownContact(contact) : contact
        }
    }

    private mutating func addProvider(
        _ message: KadMessage, from asker: PeerID, askerKey: KadKey, now: NIODeadline
    ) -> KademliaReply {
        // A record can only be for its sender, and only with an address to reach it.
        guard let contact = message.providerPeers.first(where: { $0.id == asker && !$0.addresses.isEmpty }) else {
            return .reset("ADD_PROVIDER without a usable address of its sender")
        }
        // What was still on its way when the peer said goodbye.
        guard departed[askerKey] == nil else { return .silence }
        statistics.recordsReceived += 1
        health.alive(askerKey)
        let position = KadKey(hashing: message.key)
        let table = self.table
        switch store.add(position, provider: contact, isTrusted: { table.contains($0) }, now: now) {
        case .added, .refreshed:
            deliver(lookupFound([contact], for: position, now: now))
        case .keyFull, .providerFull, .storeFull:
            // Not an offence: the key has keepers enough, or better ones. A reset would cost the sender the rest of
            // its batch.
            if store.refused & (store.refused - 1) == 0 {
                log(.warning, "provider records refused: the store is full", ["refused": "\(store.refused)"])
            }
        }
        if !isSweeping {
            isSweeping = true
            timers.schedule(.sweep, at: now + .seconds(10))
        }
        return .silence
    }
}
