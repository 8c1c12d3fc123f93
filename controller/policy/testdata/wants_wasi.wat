;; A module for wasm32-wasip1: the wrong target, the most common mistake.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
  (import "env" "now" (func (result i64)))
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param i32 i32) (result i64)
    ;; 2 bytes at 1024: {}
    i64.const 0x0000_0400_0000_0002)
  (data (i32.const 1024) "{}"))
