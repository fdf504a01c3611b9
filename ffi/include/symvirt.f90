! symvirt: what symvirt.h offers, for Fortran 2008. Compile it with the program; there is nothing to
! link: functions are looked up in the process when they are called, and return symvirt_absent where
! the library is not preloaded. See symvirt.h for what they do.
!
! SPDX-License-Identifier: MIT OR Apache-2.0
module symvirt
    use, intrinsic :: iso_c_binding
    implicit none
    private

    integer(c_int), parameter, public :: symvirt_ok = 0
    integer(c_int), parameter, public :: symvirt_absent = -1
    integer(c_int), parameter, public :: symvirt_invalid = -2
    integer(c_int), parameter, public :: symvirt_not_held = -3
    integer(c_int), parameter, public :: symvirt_in_callback = -4

    ! Kinds of peers: first index of the transports is 1.
    integer, parameter, public :: symvirt_self = 1, symvirt_local = 2, symvirt_remote = 3
    integer, parameter :: classes = 3, names = 128

    ! struct symvirt_state; its size is set by symvirt_get_state.
    type, bind(c), public :: symvirt_state
        integer(c_size_t) :: size = 0
        integer(c_int64_t) :: epoch = 0
        integer(c_int) :: member = 0
        integer(c_int) :: switching = 0
        integer(c_int) :: holds = 0
        character(kind=c_char) :: transports(names, classes) = c_null_char
    end type

    ! struct symvirt_switch
    type, bind(c), public :: symvirt_switch
        integer(c_size_t) :: size
        integer(c_int64_t) :: epoch
        integer(c_int) :: hold
        type(c_ptr) :: tls, net_devices
    end type

    ! struct symvirt_participant: c_funloc of functions of the types below, or c_null_funptr.
    type, bind(c), public :: symvirt_participant
        integer(c_size_t) :: size = 0
        type(c_ptr) :: name = c_null_ptr
        type(c_ptr) :: context = c_null_ptr
        type(c_funptr) :: prepare = c_null_funptr
        type(c_funptr) :: release = c_null_funptr
        type(c_funptr) :: acquire = c_null_funptr
        type(c_funptr) :: abort = c_null_funptr
    end type

    abstract interface
        ! prepare, release, acquire: c_null_ptr, or the address of a null-terminated reason.
        function symvirt_callback(context, change) bind(c) result(reason)
            import :: c_ptr, symvirt_switch
            type(c_ptr), value :: context
            type(symvirt_switch), intent(in) :: change
            type(c_ptr) :: reason
        end function
        subroutine symvirt_abort_callback(context, change) bind(c)
            import :: c_ptr, symvirt_switch
            type(c_ptr), value :: context
            type(symvirt_switch), intent(in) :: change
        end subroutine

        function version_fn(major, minor, patch) bind(c) result(status)
            import :: c_int
            integer(c_int), intent(out) :: major, minor, patch
            integer(c_int) :: status
        end function
        function state_fn(state) bind(c) result(status)
            import :: c_int, symvirt_state
            type(symvirt_state), intent(inout) :: state
            integer(c_int) :: status
        end function
        function hold_fn(region) bind(c) result(status)
            import :: c_int, c_char
            character(kind=c_char), intent(in) :: region(*)
            integer(c_int) :: status
        end function
        function allow_fn() bind(c) result(status)
            import :: c_int
            integer(c_int) :: status
        end function
        function add_fn(participant) bind(c) result(status)
            import :: c_int, symvirt_participant
            type(symvirt_participant), intent(in) :: participant
            integer(c_int) :: status
        end function
        function remove_fn(name, context) bind(c) result(status)
            import :: c_int, c_char, c_ptr
            character(kind=c_char), intent(in) :: name(*)
            type(c_ptr), value :: context
            integer(c_int) :: status
        end function
    end interface

    interface
        function dlsym(handle, name) bind(c, name="dlsym") result(found)
            import :: c_ptr, c_funptr, c_char
            type(c_ptr), value :: handle
            character(kind=c_char), intent(in) :: name(*)
            type(c_funptr) :: found
        end function
    end interface

    public :: symvirt_callback, symvirt_abort_callback
    public :: symvirt_version, symvirt_get_state, symvirt_hold, symvirt_allow
    public :: symvirt_add, symvirt_remove, symvirt_transports

contains

    ! The library's function of this name; not associated where there is no library. A null handle
    ! means the default search, as with RTLD_DEFAULT.
    function find(name) result(found)
        character(*), intent(in) :: name
        type(c_funptr) :: found
        found = dlsym(c_null_ptr, name // c_null_char)
    end function

    function symvirt_version(major, minor, patch) result(status)
        integer(c_int), intent(out) :: major, minor, patch
        integer(c_int) :: status
        procedure(version_fn), pointer :: call_it
        type(c_funptr) :: found
        major = 0
        minor = 0
        patch = 0
        status = symvirt_absent
        found = find("symvirt_version")
        if (.not. c_associated(found)) return
        call c_f_procpointer(found, call_it)
        status = call_it(major, minor, patch)
    end function

    function symvirt_get_state(state) result(status)
        type(symvirt_state), intent(out) :: state
        integer(c_int) :: status
        procedure(state_fn), pointer :: call_it
        type(c_funptr) :: found
        state%size = c_sizeof(state)
        status = symvirt_absent
        found = find("symvirt_get_state")
        if (.not. c_associated(found)) return
        call c_f_procpointer(found, call_it)
        status = call_it(state)
    end function

    ! The transports to one kind of peers, as a Fortran string.
    function symvirt_transports(state, class) result(text)
        type(symvirt_state), intent(in) :: state
        integer, intent(in) :: class
        character(:), allocatable :: text
        integer :: at
        text = ""
        do at = 1, names
            if (state%transports(at, class) == c_null_char) return
            text = text // state%transports(at, class)
        end do
    end function

    function symvirt_hold(region) result(status)
        character(*), intent(in) :: region
        integer(c_int) :: status
        procedure(hold_fn), pointer :: call_it
        type(c_funptr) :: found
        status = symvirt_absent
        found = find("symvirt_hold")
        if (.not. c_associated(found)) return
        call c_f_procpointer(found, call_it)
        status = call_it(trim(region) // c_null_char)
    end function

    function symvirt_allow() result(status)
        integer(c_int) :: status
        procedure(allow_fn), pointer :: call_it
        type(c_funptr) :: found
        status = symvirt_absent
        found = find("symvirt_allow")
        if (.not. c_associated(found)) return
        call c_f_procpointer(found, call_it)
        status = call_it()
    end function

    ! The participant's name is given here, as a Fortran string; its size is set.
    function symvirt_add(name, participant) result(status)
        character(*), intent(in) :: name
        type(symvirt_participant), intent(in) :: participant
        integer(c_int) :: status
        procedure(add_fn), pointer :: call_it
        type(c_funptr) :: found
        type(symvirt_participant) :: complete
        character(kind=c_char, len=:), allocatable, target :: text
        status = symvirt_absent
        found = find("symvirt_add")
        if (.not. c_associated(found)) return
        text = trim(name) // c_null_char
        complete = participant
        complete%size = c_sizeof(complete)
        complete%name = c_loc(text)
        call c_f_procpointer(found, call_it)
        status = call_it(complete)
    end function

    function symvirt_remove(name, context) result(status)
        character(*), intent(in) :: name
        type(c_ptr), intent(in) :: context
        integer(c_int) :: status
        procedure(remove_fn), pointer :: call_it
        type(c_funptr) :: found
        status = symvirt_absent
        found = find("symvirt_remove")
        if (.not. c_associated(found)) return
        call c_f_procpointer(found, call_it)
        status = call_it(trim(name) // c_null_char, context)
    end function
end module
