;; An honest runtime: _initialize sets up what deciding needs, in every instance.
(module
  (memory (export "memory") 5)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (global $ready (mut i32) (i32.const 0))
  (func (export "_initialize")
    global.get $ready
    if
      unreachable
    end
    i32.const 1
    global.set $ready)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    global.get $ready
    i32.eqz
    if
      unreachable
    end
    i64.const 0x0000_0400_0000_0002)
  (data (i32.const 1024) "{}"))
