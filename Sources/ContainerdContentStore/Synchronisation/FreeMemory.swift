#if Containerd
    #if canImport(Glibc)
        import Glibc
    #endif

    /// Memory that was freed and that the C library keeps for later.
    enum FreeMemory {
        #if canImport(Glibc)
            private typealias Trim = @convention(c) (Int) -> CInt

            /// `malloc_trim(3)`, which Swift's module of the C library does not have.
            private static let trim: Trim? = dlsym(nil, "malloc_trim").map { unsafeBitCast($0, to: Trim.self) }

            /// Gives it back to the system. It blocks for milliseconds.
            static func giveBack() { _ = trim?(0) }
        #else
            /// Gives it back to the system; other C libraries do so themselves.
            static func giveBack() {}
        #endif
    }
#endif
